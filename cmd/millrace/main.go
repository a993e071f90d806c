// Command millrace is the whole of Millrace in one binary: it checks and applies definitions, runs the speed,
// batch and serving layers, and starts all of them on one machine. It holds the wiring alone: flags, environment
// and signals end here, everything below takes a Config.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"millrace/internal/telemetry"
)

// app is what a subcommand may touch of the outside world. Subcommands never use os.Stdin, os.Getenv and the like,
// so that a test can run every one of them inside its own process.
type app struct {
	ctx            context.Context //nolint:containedctx // kong calls Run methods with values, not with a context
	stdin          io.Reader
	stdout, stderr io.Writer
	log            *slog.Logger
	getenv         func(string) string
}

// cli is the command line. Each subcommand is a struct in a file of its own with a method Run(*app) error; its
// help tag says what it does in one sentence, its optional method Help() string teaches by examples.
// The order of the fields is the order in the help.
type cli struct {
	LogLevel  string `help:"Least level to log: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
	LogFormat string `help:"Form of log lines: text or json." enum:"text,json" default:"text"`

	// Define: what a feature is.
	Check checkCmd `cmd:"" group:"define" help:"Check definitions, and say all that is wrong with them."`
	Plan  planCmd  `cmd:"" group:"define" help:"Say what apply would change, and what it costs."`
	Test  testCmd  `cmd:"" group:"define" help:"Run scripts of expected values, without any server."`

	// Run: the layers, one process each, or all of them together.
	Dev     devCmd     `cmd:"" group:"run" help:"Start everything on this machine: Kafka, Redis, ClickHouse, the layers."`
	Apply   applyCmd   `cmd:"" group:"run" help:"Put definitions into force."`
	Speed   speedCmd   `cmd:"" group:"run" help:"Fold events into features and archive them."`
	Batch   batchCmd   `cmd:"" group:"run" help:"Recompute bases from the archive."`
	Serve   serveCmd   `cmd:"" group:"run" help:"Answer for features over HTTP."`
	Produce produceCmd `cmd:"" group:"run" help:"Publish a file of events into a source's topic."`
	Engine  engineCmd  `cmd:"" group:"run" help:"Serve the embedded ClickHouse engine on loopback."`

	// Operate: look inside, prove, repair.
	Probe   probeCmd   `cmd:"" group:"operate" help:"Ask a URL whether a process is well."`
	Get     getCmd     `cmd:"" group:"operate" help:"Ask for online features and show them."`
	Audit   auditCmd   `cmd:"" group:"operate" help:"Compare every served value with the archive."`
	Version versionCmd `cmd:"" group:"operate" help:"Print which build this is."`
}

const description = `Millrace computes features for machine learning from a stream, recomputes them from history, and serves one exact answer from both.`

func groups() []kong.Group {
	return []kong.Group{
		{Key: "define", Title: "Define features:"},
		{Key: "run", Title: "Run:"},
		{Key: "operate", Title: "Operate:"},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal the handler is gone, so that a second one ends a shutdown that hangs.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without its process: args are without the program's name, env is in the form of os.Environ.
// It returns the exit status.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var (
		c      cli
		help   bool
		lookup = lookupIn(env)
	)
	parser, err := newParser(&c, lookup, stdout, stderr, func(int) { help = true })
	if err != nil {
		panic("BUG: command line: " + err.Error())
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if help {
		return exitDone
	}
	if err != nil {
		command := ""
		if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context.Selected() != nil {
			command = parse.Context.Command()
		}
		return report(stderr, command, usageError{err})
	}
	a := &app{
		ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr,
		log:    newLogger(stderr, c.LogLevel, c.LogFormat),
		getenv: func(name string) string { v, _ := lookup(name); return v },
	}
	return report(stderr, kctx.Command(), kctx.Run(a))
}

// newParser makes the command line; only --help calls exit.
func newParser(c *cli, lookup func(string) (string, bool), stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("millrace"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.ExplicitGroups(groups()),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 120}),
		kong.ValueFormatter(helpWithEnv),
		kong.Resolvers(envResolver{lookup: lookup}),
		kong.Exit(exit),
	)
}

// newLogger logs to w; lines inside a span name it.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		panic("BUG: log level: " + err.Error()) // kong has checked the enum
	}
	opts := &slog.HandlerOptions{Level: least}
	if format == "json" {
		return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, opts)))
}

// Exit statuses, so that a scheduler or a shell can tell what to do next.
const (
	exitDone     = 0
	exitFailed   = 1  // trying again will not help by itself
	exitUsage    = 2  // the command line or a definition is wrong
	exitTryAgain = 75 // EX_TEMPFAIL: a store was away, a lease was held
)

// usageError is a mistake in how the program was called: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// tryAgainError is a failure that a later call of the same command may not meet: exit status 75.
type tryAgainError struct{ err error }

func (e tryAgainError) Error() string { return e.err.Error() }
func (e tryAgainError) Unwrap() error { return e.err }

func tryAgain(err error) error { return tryAgainError{err} }

// report prints what went wrong in a command and gives the exit status for it.
func report(stderr io.Writer, command string, err error) int {
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(stderr, "millrace: %v\n", err) // where stderr is gone, the status still speaks
	if _, ok := errors.AsType[usageError](err); ok {
		_, _ = fmt.Fprintf(stderr, "Run \"%s --help\" for usage.\n", strings.TrimSpace("millrace "+command))
		return exitUsage
	}
	if _, ok := errors.AsType[tryAgainError](err); ok {
		return exitTryAgain
	}
	return exitFailed
}
