// Package models is the place of machine-learning models: their registry entries, their artifact formats read from
// bytes, and scoring over a row of features. It imports features and windows and is pure like them: no files, no
// network, no clock.
//
// It does not hold data-transfer structs. A struct that moves data lives beside the code that uses it.
package models
