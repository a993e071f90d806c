// Package features is what a feature is: sources, entities, feature views and feature services as people declare them, checked
// and compiled into what the layers run, with the identities that let old and new definitions live side by side.
//
// It does no I/O and knows no layer: it takes bytes and returns values. The algebra that the views compile to is package
// windows; where states lie in the stores is package keyspace.
package features
