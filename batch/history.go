package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"millrace/features"
	"millrace/features/tables"
	"millrace/windows"
)

// The states of a run in the table of runs. A run without a row of one of the last two is unfinished, whatever else it went
// through, and is resumed.
const (
	stateRunning = "running" // detail: how far it is
	stateFailed  = "failed"  // detail: the error
	stateSuccess = "success" // detail: its last Progress
	stateSkipped = "skipped" // given up before it wrote a base; detail: why
)

// mark is how far a run is: the detail of a running row.
type mark struct {
	At       cursor `json:"at"`
	Entities uint64 `json:"entities"`
}

// record adds a row to the table of runs. It does so also for a run that was stopped.
func (r *Runner) record(ctx context.Context, v *features.BoundView, run features.Run, state, detail string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	batch, err := r.cfg.ClickHouse.PrepareBatch(ctx, tables.Runs().Insert())
	if err != nil {
		return fmt.Errorf("record run %d: %w", run.ID, err)
	}
	defer func() { _ = batch.Close() }()
	if err := batch.Append(run.ID, v.Definition.Name, run.Version, state, string(document(run)), detail, time.Now().UTC()); err != nil {
		return fmt.Errorf("record run %d: %w", run.ID, err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("record run %d: %w", run.ID, err)
	}
	return nil
}

func document(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: document does not encode: " + err.Error())
	}
	return data
}

// unfinished returns the latest run of a version if it did not come to its end, and how far it had come.
func (r *Runner) unfinished(ctx context.Context, version uint32) (run features.Run, at mark, found bool, err error) {
	name := tables.Quote(tables.Runs().Name)
	rows, err := r.cfg.ClickHouse.Query(ctx, fmt.Sprintf(`SELECT any(document), argMaxIf(detail, at, state = '%s') FROM %s WHERE version = %d
		AND run > (SELECT max(run) FROM %s WHERE version = %d AND state = '%s')
		GROUP BY run HAVING countIf(state = '%s') = 0 ORDER BY run DESC LIMIT 1`,
		stateRunning, name, version, name, version, stateSuccess, stateSkipped))
	if err != nil {
		return run, at, false, fmt.Errorf("look for an unfinished run: %w", err)
	}
	defer func() { _ = rows.Close() }()
	if rows.Next() {
		var doc, detail string
		if err := rows.Scan(&doc, &detail); err != nil {
			return run, at, false, fmt.Errorf("look for an unfinished run: %w", err)
		}
		found = true
		if err := json.Unmarshal([]byte(doc), &run); err != nil {
			return run, at, false, fmt.Errorf("document of an unfinished run: %w", err)
		}
		at = mark{At: start}
		if detail != "" {
			if err := json.Unmarshal([]byte(detail), &at); err != nil {
				return run, at, false, fmt.Errorf("record of run %d: %w", run.ID, err)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return run, at, false, fmt.Errorf("look for an unfinished run: %w", err)
	}
	return run, at, found, nil
}

// planTries is how often a run is planned again because another one came in between.
const planTries = 5

// plan makes a new run of the view: a number above all others, and positions that are not behind those of any run before it.
// Numbers and positions of a version so rise together, which is what lets an entity's base be replaced by comparing numbers
// alone. The number is claimed by writing the run's document under it, before any base can name it.
func (r *Runner) plan(ctx context.Context, v *features.BoundView) (features.Run, error) {
	for range planTries {
		positions, err := r.positions(ctx, v)
		if err != nil {
			return features.Run{}, err
		}
		if err := r.checkStarts(ctx, v, positions); err != nil {
			return features.Run{}, err
		}
		id, err := r.nextRun(ctx, v, positions)
		if err != nil {
			return features.Run{}, err
		}
		run := features.Run{ID: id, Version: v.Version.ID, Positions: positions, Started: windows.Time(time.Now().UnixMilli())}
		claimed, err := r.cfg.Redis.HSetNX(ctx, r.space.Runs(), strconv.FormatUint(id, 10), document(run)).Result()
		if err != nil {
			return features.Run{}, fmt.Errorf("claim run %d: %w", id, err)
		}
		if !claimed {
			continue
		}
		// A run that claimed a lower number in the meantime may have seen more of the archive.
		if _, err := r.nextRun(ctx, v, positions); errors.Is(err, ErrArchiveBehind) {
			if err := r.record(ctx, v, run, stateSkipped, err.Error()); err != nil {
				return features.Run{}, err
			}
			continue
		} else if err != nil {
			return features.Run{}, err
		}
		return run, r.record(ctx, v, run, stateRunning, string(document(mark{At: start})))
	}
	return features.Run{}, fmt.Errorf("view %s: other runs were planned %d times in between: try again", v.Definition.Name, planTries)
}

// nextRun returns a number above all runs, if none of the version reaches further than the positions.
func (r *Runner) nextRun(ctx context.Context, v *features.BoundView, positions []features.Position) (uint64, error) {
	documents, err := r.cfg.Redis.HGetAll(ctx, r.space.Runs()).Result()
	if err != nil {
		return 0, fmt.Errorf("read the runs: %w", err)
	}
	var last uint64
	for _, d := range documents {
		var run features.Run
		if err := json.Unmarshal([]byte(d), &run); err != nil {
			return 0, fmt.Errorf("document of a run: %w", err)
		}
		last = max(last, run.ID)
		if run.Version == v.Version.ID && behind(positions, run.Positions) {
			return 0, fmt.Errorf("view %s: %w: run %d", v.Definition.Name, ErrArchiveBehind, run.ID)
		}
	}
	// Redis may have lost the documents, the archive still knows the numbers.
	var known uint64
	if err := r.cfg.ClickHouse.QueryRow(ctx, "SELECT max(run) FROM "+tables.Quote(tables.Runs().Name)).Scan(&known); err != nil {
		return 0, fmt.Errorf("read the last run: %w", err)
	}
	return max(last, known) + 1, nil
}
