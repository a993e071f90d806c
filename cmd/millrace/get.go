package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// getCmd asks the HTTP API for online features and shows them.
type getCmd struct {
	Features []string `arg:"" optional:"" help:"Features as view:feature, or with --service none."`
	Service  string   `help:"Feature service to fetch." placeholder:"NAME"`
	Entity   []string `help:"An entity as key=value, composite keys as key=value,key=value; may be repeated." short:"e" required:"" sep:"none" placeholder:"KEY=VALUE"`
	AsOf     *int64   `help:"Moment of the read, in milliseconds since 1970; now if not given."`
	URL      string   `help:"HTTP API to ask." default:"http://127.0.0.1:6566" placeholder:"URL"`
	JSON     bool     `help:"Print the answer as it came."`
}

func (getCmd) Help() string {
	return `  millrace get visits:hits visits:bytes -e client=66.249.73.135
  millrace get --service visitor_profile -e client=66.249.73.135 -e client=46.105.14.53 --as-of 1432155960000`
}

// Run asks and prints a table: one row an entity, one column a feature.
func (c *getCmd) Run(a *app) error {
	columns := map[string][]any{}
	for _, e := range c.Entity {
		for part := range strings.SplitSeq(e, ",") {
			name, value, ok := strings.Cut(part, "=")
			if !ok {
				return usagef("--entity %q: want key=value", e)
			}
			columns[name] = append(columns[name], value)
		}
	}
	body := map[string]any{"entities": columns}
	switch {
	case c.Service != "" && len(c.Features) > 0:
		return usagef("name features or a service, not both")
	case c.Service != "":
		body["feature_service"] = c.Service
	case len(c.Features) > 0:
		body["features"] = c.Features
	default:
		return usagef("name features as view:feature, or a service with --service")
	}
	if c.AsOf != nil {
		body["as_of"] = *c.AsOf
	}
	answer, err := onlineFeatures(a.ctx, &http.Client{Timeout: time.Minute}, c.URL, body)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := a.stdout.Write(append(answer.raw, '\n'))
		return err
	}
	return answer.table(a.stdout)
}

// onlineAnswer is an answer of POST /get-online-features.
type onlineAnswer struct {
	Results  []onlineColumn `json:"results"`
	Metadata struct {
		FeatureNames []string `json:"feature_names"`
	} `json:"metadata"`
	raw []byte
}

type onlineColumn struct {
	Values   []json.RawMessage `json:"values"`
	Statuses []string          `json:"statuses"`
}

func (r *onlineAnswer) column(name string) (onlineColumn, bool) {
	for i, n := range r.Metadata.FeatureNames {
		if n == name && i < len(r.Results) {
			return r.Results[i], true
		}
	}
	return onlineColumn{}, false
}

// table prints values, and statuses where they say more than the value.
func (r *onlineAnswer) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(t, strings.Join(r.Metadata.FeatureNames, "\t")); err != nil {
		return err
	}
	rows := 0
	if len(r.Results) > 0 {
		rows = len(r.Results[0].Values)
	}
	for row := range rows {
		cells := make([]string, len(r.Results))
		for i, c := range r.Results {
			cells[i] = strings.Trim(string(c.Values[row]), `"`)
			if cells[i] == "null" {
				cells[i] = "-"
			}
			if s := c.Statuses[row]; s == "INVALID" || s == "OUTSIDE_MAX_AGE" {
				cells[i] = s
			}
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

// onlineFeatures asks the API once.
func onlineFeatures(ctx context.Context, client *http.Client, url string, body map[string]any) (*onlineAnswer, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/get-online-features", bytes.NewReader(data))
	if err != nil {
		return nil, usagef("--url: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, tryAgain(fmt.Errorf("ask %s: %w", url, err))
	}
	defer func() { _ = resp.Body.Close() }()
	answer := &onlineAnswer{}
	if answer.raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return nil, tryAgain(fmt.Errorf("ask %s: %w", url, err))
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d: %s", url, resp.StatusCode, feastMessage(answer.raw))
	}
	if err := json.Unmarshal(answer.raw, answer); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", url, err)
	}
	return answer, nil
}

// feastMessage takes the message out of an error body, which Feast encodes twice.
func feastMessage(body []byte) string {
	var inner string
	var fields struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &inner) == nil && json.Unmarshal([]byte(inner), &fields) == nil && fields.Message != "" {
		return fields.Message
	}
	return strings.TrimSpace(string(body[:min(len(body), 500)]))
}

// ping returns errNotReady unless a URL answers 200.
func ping(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotReady, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // as much as came
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s answered %d: %s", errNotReady, url, resp.StatusCode, text)
	}
	return nil
}
