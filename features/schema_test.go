package features

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../docs/definitions.schema.json"

// TestSchemaFile: what editors read is what the parser checks. `go test -run TestSchemaFile -update` writes it.
func TestSchemaFile(t *testing.T) {
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(schemaFile, JSONSchema(), 0o644); err != nil { //nolint:gosec // a document of the repository
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, JSONSchema()) {
		t.Errorf("%s is not current: run `go test ./features -run TestSchemaFile -update`", schemaFile)
	}
}

// TestSchemaAgrees: on form, the schema and the parser refuse the same documents. The documents are those of
// testdata/problems.txt, and every change of one key or value of them.
func TestSchemaAgrees(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("definitions.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	lang := language()
	accepted, refused := 0, 0
	compare := func(what string, root *yamlNode) {
		c := &checker{}
		lang.check(c, root.clone(), place{})
		err := schema.Validate(root.value())
		if (err == nil) != (len(c.problems) == 0) {
			text, _ := json.Marshal(root.value())
			t.Errorf("%s: the parser says %q, the schema says %v\n%s", what, c.problems.Error(), err, text)
		}
		if err == nil {
			accepted++
		} else {
			refused++
		}
	}
	for name, root := range schemaDocuments(t) {
		compare(name, root)
		if strings.Contains(name, "everything") || strings.Contains(name, "base.yaml") {
			root.eachChange(func(what string) { compare(name+": "+what, root) })
		}
	}
	if accepted < 500 || refused < 2000 {
		t.Errorf("%d documents accepted, %d refused: the test has lost its documents", accepted, refused)
	}
}

// schemaDocuments are the files in testdata/problems.txt that are YAML and have no duplicate keys, which are no matter of the
// schema.
func schemaDocuments(t *testing.T) map[string]*yamlNode {
	t.Helper()
	text, err := os.ReadFile("testdata/problems.txt")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]*yamlNode{}
	for _, part := range strings.Split(string(text), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		input, _, _ := strings.Cut(rest, "\n>>>")
		for i, file := range strings.Split("-- f.yaml --\n"+strings.TrimPrefix(input, "+base\n"), "-- ") {
			header, body, _ := strings.Cut(file, "\n")
			f, root := readYAML("f.yaml", []byte(body))
			if i > 0 && root != nil && len(f.problems) == 0 {
				docs[name+" "+header] = root
			}
		}
	}
	return docs
}

func (n *yamlNode) clone() *yamlNode {
	c := *n
	c.items, c.entries = nil, nil
	for _, item := range n.items {
		c.items = append(c.items, item.clone())
	}
	for _, e := range n.entries {
		c.entries = append(c.entries, yamlEntry{e.key.clone(), e.value.clone()})
	}
	return &c
}

// value is n as a JSON value. An integer in another notation than decimal is text: the schema knows no notations.
func (n *yamlNode) value() any {
	switch n.kind {
	case yamlMap:
		m := map[string]any{}
		for _, e := range n.entries {
			m[e.key.text] = e.value.value()
		}
		return m
	case yamlList:
		list := []any{}
		for _, item := range n.items {
			list = append(list, item.value())
		}
		return list
	case yamlBool:
		return strings.EqualFold(n.text, "true")
	case yamlInteger, yamlNumber:
		if decimalDigits.MatchString(n.text) || n.kind == yamlNumber {
			return json.Number(n.text)
		}
		return n.text
	case yamlNull:
		return nil
	case yamlText:
	}
	return n.text
}

// eachChange calls visit with n changed in one place, for every place and change.
func (n *yamlNode) eachChange(visit func(what string)) {
	saved := *n
	for _, other := range []*yamlNode{
		{kind: yamlText, text: "x"},
		{kind: yamlText, text: ""},
		{kind: yamlText, text: "30m"},
		{kind: yamlText, text: "1h5ms"},
		{kind: yamlText, text: "5m1h"},
		{kind: yamlText, text: "any"},
		{kind: yamlText, text: "all"},
		{kind: yamlText, text: "on"},
		{kind: yamlText, text: "string"},
		{kind: yamlText, text: "int64"},
		{kind: yamlText, text: "count"},
		{kind: yamlText, text: "sum"},
		{kind: yamlText, text: "session_end"},
		{kind: yamlText, text: "lifetime"},
		{kind: yamlText, text: "session"},
		{kind: yamlText, text: "sliding"},
		{kind: yamlText, text: "previous"},
		{kind: yamlText, text: "A-b"},
		{kind: yamlText, text: "a:b"},
		{kind: yamlText, text: ".."},
		{kind: yamlText, text: "system"},
		{kind: yamlText, text: strings.Repeat("a", 64)},
		{kind: yamlText, text: "2020-01-01T00:00:00+01:00"},
		{kind: yamlText, text: "a b"},
		{kind: yamlInteger, text: "0"},
		{kind: yamlInteger, text: "-1"},
		{kind: yamlInteger, text: "40000"},
		{kind: yamlInteger, text: "9223372036854775808"},
		{kind: yamlNumber, text: "1.5"},
		{kind: yamlBool, text: "true"},
		{kind: yamlList},
		{kind: yamlMap},
		{kind: yamlList, items: []*yamlNode{{kind: yamlText, text: "a"}, {kind: yamlText, text: "a"}}},
	} {
		*n = *other
		visit(fmt.Sprintf("%d:%d becomes %s %q", saved.line, saved.column, other.kind, other.text))
	}
	*n = saved
	for i := range n.items {
		n.items[i].eachChange(visit)
	}
	for i, e := range n.entries {
		e.value.eachChange(visit)
		name := e.key.text
		for _, other := range []string{"x", "hop", "field", "where", "max_bytes", "topic", "9", "A_b", "a-b", ""} {
			if n.at(other) == nil {
				e.key.text = other
				visit(fmt.Sprintf("%d:%d: key %s becomes %q", e.key.line, e.key.column, name, other))
			}
		}
		e.key.text = name
		n.entries = append(append([]yamlEntry{}, saved.entries[:i]...), saved.entries[i+1:]...)
		visit(fmt.Sprintf("%d:%d: key %s is gone", e.key.line, e.key.column, name))
		n.entries = saved.entries
	}
}
