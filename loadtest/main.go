// Command loadtest measures Millrace over the wire, as its users would meet it, beside floors measured in the same run: the
// fastest known way to do a part of the work. It starts what it needs on loopback, checks every answer against the
// generator's own, and prints lines for machines beside what people read:
//
//	RESULT name=<name> value=<number> unit=<unit> ratio=<number> of=<floor or peer>
//
// It holds no product code and imports none of the layers.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: loadtest <measurement> [flags]

  speed   events per core-second of a session view over JSON events, against consuming and decoding alone
  read    requests per second for 1 entity × 10 features, against one packed value behind the same server

Each takes -millrace PATH (default bin/millrace) and -h for its other flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "loadtest: %v\n", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		_, err := io.WriteString(out, usage)
		return err
	}
	command, ok := map[string]func(context.Context, []string, io.Writer) error{
		"speed": measureSpeed, "read": measureRead,
		// What the measurements start as processes of their own, so that the system accounts for each.
		"broker": serveBroker, "floor-consume": floorConsume, "floor-serve": floorServe,
	}[args[0]]
	if !ok {
		return fmt.Errorf("unknown measurement %q\n%s", args[0], usage)
	}
	return command(ctx, args[1:], out)
}

func flags(name string) *flag.FlagSet { return flag.NewFlagSet("loadtest "+name, flag.ExitOnError) }

// result prints one measurement for machines.
func result(out io.Writer, name string, value float64, unit string, ratio float64, of string) {
	_, _ = fmt.Fprintf(out, "RESULT name=%s value=%.0f unit=%s ratio=%.3f of=%s\n", name, value, unit, ratio, of)
}
