package batch

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/windows"
)

// stateRows is the answer to one query of states: entities in order of bucket and key, each with its rows.
type stateRows struct {
	entities     []entityRows
	a, b, c      []int64 // what the query gives between key and states: up to three times or indices
	words        []uint64
	texts        []string
	nWord, nText int // of one row
}

type entityRows struct {
	bucket uint32
	key    string
	lo, hi int // its rows
}

func (e entityRows) compare(o entityRows) int {
	return cmp.Or(cmp.Compare(e.bucket, o.bucket), strings.Compare(e.key, o.key))
}

func (s *stateRows) partial(row int) windows.Partial {
	return windows.Partial{Words: s.words[row*s.nWord : (row+1)*s.nWord], Texts: s.texts[row*s.nText : (row+1)*s.nText]}
}

// read runs a query whose columns are bucket, key, some numbers and the states of a level.
func read(ctx context.Context, conn driver.Conn, query string, numbers int, level windows.LevelInfo) (*stateRows, error) {
	s := &stateRows{nWord: level.Words, nText: level.Texts}
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("query states: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var (
		bucket uint32
		key    string
		number [3]int64
		words  = make([]uint64, level.Words)
		texts  = make([]string, level.Texts)
		row    = []any{&bucket, &key}
	)
	for i := range numbers {
		row = append(row, &number[i])
	}
	for i := range words {
		row = append(row, &words[i])
	}
	for i := range texts {
		row = append(row, &texts[i])
	}
	n := 0
	for rows.Next() {
		if err := rows.Scan(row...); err != nil {
			return nil, fmt.Errorf("read states: %w", err)
		}
		if last := len(s.entities) - 1; last < 0 || s.entities[last].key != key || s.entities[last].bucket != bucket {
			s.entities = append(s.entities, entityRows{bucket, key, n, n})
		}
		n++
		s.entities[len(s.entities)-1].hi = n
		s.a, s.b, s.c = append(s.a, number[0]), append(s.b, number[1]), append(s.c, number[2])
		s.words, s.texts = append(s.words, words...), append(s.texts, texts...)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	return s, nil
}

// inStep walks several answers by entity: visit gets, for every entity that is in any of them, its rows in each; an empty
// entityRows where it has none.
func inStep(answers []*stateRows, visit func(id entityRows, of []entityRows) error) error {
	next := make([]int, len(answers))
	of := make([]entityRows, len(answers))
	for {
		var least *entityRows
		for i, s := range answers {
			if next[i] < len(s.entities) {
				if e := &s.entities[next[i]]; least == nil || e.compare(*least) < 0 {
					least = e
				}
			}
		}
		if least == nil {
			return nil
		}
		id := *least
		for i, s := range answers {
			of[i] = entityRows{}
			if next[i] < len(s.entities) && s.entities[next[i]].compare(id) == 0 {
				of[i] = s.entities[next[i]]
				next[i]++
			}
		}
		if err := visit(id, of); err != nil {
			return err
		}
	}
}
