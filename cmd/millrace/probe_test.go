package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/fail", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "redis is away", http.StatusServiceUnavailable)
	})
	mux.Handle("/moved", http.RedirectHandler("/ok", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, test := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{server.URL + "/ok"}, exitDone, ""},
		{[]string{server.URL + "/fail"}, exitTryAgain, "503 Service Unavailable: redis is away"},
		{[]string{server.URL + "/moved"}, exitTryAgain, "302"},
		{[]string{server.URL + "/slow", "--timeout=20ms"}, exitTryAgain, "deadline exceeded"},
		{[]string{"http://127.0.0.1:1/"}, exitTryAgain, "refused"},
		{[]string{"::"}, exitUsage, "probe"},
		{nil, exitUsage, "url"},
	} {
		code, _, stderr := call(t, nil, append([]string{"probe"}, test.args...)...)
		if code != test.status || !strings.Contains(stderr, test.stderr) {
			t.Errorf("probe %v: status %d, stderr %q; want %d, %q", test.args, code, stderr, test.status, test.stderr)
		}
	}
}
