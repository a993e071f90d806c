package features

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"amount", "currency", "user_id", "at"}
	for _, test := range []struct{ name, want string }{
		{"amount", "amount"},
		{"amuont", "amount"},
		{"amout", "amount"},
		{"curency", "currency"},
		{"user", ""},
		{"userid", "user_id"},
		{"ts", ""},
		{"au", "at"},
		{"", ""},
		{"completely_different", ""},
	} {
		if got := Nearest(test.name, names); got != test.want {
			t.Errorf("%q: got %q, want %q", test.name, got, test.want)
		}
	}
}
