package featurestest

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")

func TestCorpus(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	cases, err := Corpus()
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	for _, c := range cases {
		for _, err := range append(RunOracle(c), RunWindows(c, rng)...) {
			t.Error(err)
		}
		reads += len(c.Reads)
	}
	t.Logf("%d cases, %d reads", len(cases), reads)
	if len(cases) < 100 {
		t.Errorf("only %d cases", len(cases))
	}
}
