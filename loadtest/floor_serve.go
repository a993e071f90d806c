package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-faster/jx"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// packed is what the floor stores for a user: ten 8-byte values.
func packed(user int) []byte {
	b := make([]byte, 0, 80)
	for i := range 10 {
		b = binary.LittleEndian.AppendUint64(b, uint64(user*10+i))
	}
	return b
}

// floorServe answers like the product in form, doing the least that a server of stored features must: parse the request, get
// one packed value through an automatic pipeline, write Feast's JSON.
func floorServe(ctx context.Context, args []string, _ io.Writer) error {
	f := flags("floor-serve")
	listen := f.String("listen", "127.0.0.1:0", "address")
	addr := f.String("redis", "127.0.0.1:6379", "Redis")
	_ = f.Parse(args)
	client := redis.NewClient(&redis.Options{Addr: *addr})
	defer func() { _ = client.Close() }()
	rdb, err := client.AutoPipeline()
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	buffers := sync.Pool{New: func() any { return new([]byte) }}

	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.POST("/get-online-features", func(c echo.Context) error {
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		user, names, err := parseFloor(body)
		if err != nil {
			return err
		}
		value, err := rdb.Get(c.Request().Context(), "floor:"+user).Bytes()
		if err != nil {
			return err
		}
		buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
		out := (*buf)[:0]
		out = append(out, `{"results":[{"values":["`...)
		out = append(out, user...)
		out = append(out, `"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]}`...)
		for i := range names {
			out = append(out, `,{"values":[`...)
			out = strconv.AppendUint(out, binary.LittleEndian.Uint64(value[8*i:]), 10)
			out = append(out, `],"statuses":["PRESENT"],"event_timestamps":["2023-11-14T22:13:20.123Z"]}`...)
		}
		out = append(out, `],"metadata":{"feature_names":["user"`...)
		for _, name := range names {
			out = append(append(append(out, `,"`...), name...), '"')
		}
		out = append(out, `]}}`...)
		c.Response().Header().Set("Content-Length", strconv.Itoa(len(out)))
		err = c.Blob(http.StatusOK, "application/json", out)
		*buf = out
		buffers.Put(buf)
		return err
	})
	go func() {
		<-ctx.Done()
		_ = e.Close()
	}()
	if err := e.Start(*listen); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("floor: %w", err)
	}
	return nil
}

// parseFloor takes the user and the feature names out of a request.
func parseFloor(body []byte) (user string, names []string, err error) {
	d := jx.GetDecoder()
	defer jx.PutDecoder(d)
	d.ResetBytes(body)
	err = d.ObjBytes(func(d *jx.Decoder, key []byte) error {
		switch string(key) {
		case "entities":
			return d.ObjBytes(func(d *jx.Decoder, _ []byte) error {
				return d.Arr(func(d *jx.Decoder) (err error) {
					user, err = d.Str()
					return err
				})
			})
		case "features":
			return d.Arr(func(d *jx.Decoder) error {
				name, err := d.Str()
				if len(name) > len("session:") {
					names = append(names, name[len("session:"):])
				}
				return err
			})
		}
		return d.Skip()
	})
	if err == nil && (user == "" || len(names) != 10) {
		err = errors.New("want one user and ten features")
	}
	return user, names, err
}
