package speed

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// checkRedis refuses a Redis that would delete states by itself, and warns of one that keeps them in the larger form. A
// server that does not show its settings is taken as it is.
func checkRedis(ctx context.Context, rdb redis.UniversalClient, log *slog.Logger) error {
	settings, err := rdb.ConfigGet(ctx, "*max*").Result()
	if err != nil {
		log.Debug("redis does not show its settings", "error", err.Error())
		return nil
	}
	if policy, ok := settings["maxmemory-policy"]; ok && policy != "noeviction" {
		return fmt.Errorf("redis has maxmemory-policy %s, which deletes states when memory is short: set it to noeviction, and keep caches elsewhere", policy)
	}
	for name, least := range map[string]int{"hash-max-listpack-entries": 512, "hash-max-listpack-value": 4096} {
		if have, err := strconv.Atoi(settings[name]); err == nil && have < least {
			log.Warn("redis will keep states in its larger form", "setting", name, "have", have, "want", least)
		}
	}
	return nil
}
