// Package serving answers for features over HTTP: it reads base and deltas of the entities asked for, merges them exactly, and
// writes them in Feast's form (POST /get-online-features) or in its own (/v1).
//
// It knows the definitions and the online store. It writes no state, and it neither folds nor recomputes: the other layers
// meet it in the store alone.
package serving
