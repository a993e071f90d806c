package features

import "encoding/json"

// JSONSchema returns the JSON Schema (2020-12) of a file of definitions, for editors. It is written from the shapes that the
// parser checks; what needs a look at another place, such as references, is beyond it.
func JSONSchema() []byte {
	schema := language().schema()
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Millrace definitions"
	schema["description"] = "Sources, entities, views and services of a Millrace project."
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic("BUG: schema does not encode: " + err.Error())
	}
	return append(text, '\n')
}
