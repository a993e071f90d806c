package produce

import (
	"context"
	"time"

	"millrace/windows"
)

// pace holds events back until it is their turn. Events may be out of order: the newest so far says how far the story has
// come, older ones go at once.
type pace struct {
	speed         Speed
	begun         time.Time // when the first event was published
	first, newest windows.Time
}

// wait blocks until an event of time t is due, or ctx ends.
func (p *pace) wait(ctx context.Context, t windows.Time) {
	if p.speed == 0 {
		return
	}
	if p.begun.IsZero() {
		p.begun, p.first, p.newest = time.Now(), t, t
		return
	}
	if t <= p.newest {
		return
	}
	p.newest = t
	// As floats, so that a stray time far off cannot overflow; it then waits for years, as it asks to.
	ahead := (float64(t) - float64(p.first)) * float64(time.Millisecond) / float64(p.speed)
	due := time.Duration(min(ahead, float64(1<<62))) - time.Since(p.begun)
	if due <= 0 {
		return
	}
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
