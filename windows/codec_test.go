package windows

import (
	"bytes"
	"cmp"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// FuzzDelta: no bytes make the decoder panic or allocate out of proportion, and what it accepts has one encoding.
func FuzzDelta(f *testing.F) {
	views := []*View{everything(f, false), everything(f, true)}
	rng := rand.New(rand.NewPCG(1, 2))
	for i, v := range views {
		for _, e := range randomEvents(rng, 20) {
			for _, id := range v.BlocksOf(nil, e.Time) {
				b := &Block{ID: id}
				v.Fold(b, &e)
				f.Add(i == 1, id.Level, id.No, v.AppendDelta(nil, 1, b))
			}
		}
	}
	f.Fuzz(func(t *testing.T, session bool, level int, no int64, value []byte) {
		v := views[0]
		if session {
			v = views[1]
		}
		b, covered, err := v.DecodeDelta(BlockID{level, no}, value)
		if err != nil {
			return
		}
		again, covered2, err := v.DecodeDelta(b.ID, v.AppendDelta(nil, covered, b))
		if err != nil || covered != covered2 {
			t.Fatalf("%x does not come back: %v", value, err)
		}
		if !bytes.Equal(v.AppendDelta(nil, covered, b), v.AppendDelta(nil, covered, again)) {
			t.Fatalf("%x has two encodings", value)
		}
		r := v.NewReader()
		if err := r.AddDelta(b.ID, value); err == nil {
			_, _ = r.At(nil, b.Newest.Add(1))
		}
	})
}

// FuzzBase does the same for bases.
func FuzzBase(f *testing.F) {
	views := []*View{everything(f, false), everything(f, true)}
	rng := rand.New(rand.NewPCG(1, 3))
	for i, v := range views {
		for range 10 {
			f.Add(i == 1, baseOf(v, randomEvents(rng, 10)))
		}
	}
	f.Fuzz(func(t *testing.T, session bool, value []byte) {
		v := views[0]
		if session {
			v = views[1]
		}
		newest, blocks, err := v.DecodeBase(value)
		if err != nil {
			return
		}
		run, err := BaseRun(value)
		if err != nil {
			t.Fatal(err)
		}
		newest2, again, err := v.DecodeBase(v.AppendBase(nil, run, newest, blocks))
		if err != nil || newest != newest2 || len(again) != len(blocks) {
			t.Fatalf("%x does not come back: %v", value, err)
		}
		r := v.NewReader()
		if err := r.AddBase(value); err == nil {
			_, _ = r.At(nil, newest.Add(1))
		}
	})
}

func baseOf(v *View, events []Event) []byte {
	var list []*Block
	newest := MinTime
	for level := range v.Levels {
		blocks := map[BlockID]*Block{}
		for i := range events {
			newest = max(newest, events[i].Time)
			id := v.BlockAt(level, events[i].Time)
			if blocks[id] == nil {
				blocks[id] = &Block{ID: id}
			}
			v.Fold(blocks[id], &events[i])
		}
		from := len(list)
		for _, b := range blocks {
			list = append(list, b)
		}
		sortBlocks(list[from:])
	}
	return v.AppendBase(nil, 9, newest, list)
}

// TestGolden: bytes that an earlier build wrote are still written so, and read as they were. A change of the format is a new
// version; the files stay, and the old ones must still be read.
func TestGolden(t *testing.T) {
	for name, session := range map[string]bool{"tiles": false, "session": true} {
		v := viewOf(t, session, []Op{Count, Sum, Mean, Min, Max, First, Last}) // those that this version was written with
		events := randomEvents(rand.New(rand.NewPCG(5, 5)), 12)
		got := baseOf(v, events)
		path := filepath.Join("testdata", "base-v1-"+name+".bin")
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the bytes of a base have changed", name)
		}
		if newest, _, err := v.DecodeBase(want); err != nil || newest != MaxTime-10 && newest < 0 {
			t.Errorf("%s: newest %d, %v", name, newest, err)
		}
	}
}

func sortBlocks(list []*Block) {
	slices.SortFunc(list, func(a, b *Block) int { return cmp.Compare(a.ID.No, b.ID.No) })
}
