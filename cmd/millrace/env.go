package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Every flag may also come from the environment: --redis.addr is MILLRACE_REDIS__ADDR, and where that is not set,
// the content of the file that MILLRACE_REDIS__ADDR_FILE names, so that a secret never stands in a process list.
// The command line wins.

const envPrefix = "MILLRACE_"

// envName is the environment's name of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "__", "-", "_").Replace(flag))
}

// lookupIn finds names in an environment of the form of os.Environ; like there, the last entry counts.
func lookupIn(env []string) func(string) (string, bool) {
	values := make(map[string]string, len(env))
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			values[name] = value
		}
	}
	return func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
}

// envOrFile reads name, or the file that <name>_FILE points to, without its line end.
func envOrFile(lookup func(string) (string, bool), name string) (string, bool, error) {
	if value, ok := lookup(name); ok {
		return value, true, nil
	}
	path, ok := lookup(name + "_FILE")
	if !ok {
		return "", false, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", false, fmt.Errorf("read %s_FILE: %w", name, err)
	}
	return strings.TrimRight(string(content), "\r\n"), true, nil
}

// secret reads a value that may not be a flag, such as a password, from the environment or from the file it names.
// It is empty where neither is set.
func (a *app) secret(name string) (string, error) {
	value, _, err := envOrFile(func(name string) (string, bool) {
		value := a.getenv(name)
		return value, value != ""
	}, name)
	return value, err
}

// envResolver gives kong the flags that the environment sets. Kong's own env tag reads the process, which a test
// cannot set for one call.
type envResolver struct{ lookup func(string) (string, bool) }

func (r envResolver) Validate(*kong.Application) error { return nil }

func (r envResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Name == "help" {
		return nil, nil
	}
	value, ok, err := envOrFile(r.lookup, envName(flag.Name))
	if err != nil || !ok {
		return nil, err
	}
	return value, nil
}

// helpWithEnv adds the environment's name to a flag's help.
func helpWithEnv(value *kong.Value) string {
	text := kong.DefaultHelpValueFormatter(value)
	if value.Flag == nil || value.Name == "help" {
		return text
	}
	return text + " [" + envName(value.Name) + "]"
}
