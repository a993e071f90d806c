package telemetry

import sdkmetric "go.opentelemetry.io/otel/sdk/metric"

// durationEdges has an edge at exactly 5 ms, the objective of an online read, and several below, so that the share inside
// the objective is exact and a quantile near it is not a guess.
func durationEdges() []float64 {
	return []float64{0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1}
}

// views give durations their edges. Our own instruments may be named in either of the two forms that reach Prometheus as
// millrace_…_duration_seconds.
func views() []sdkmetric.View {
	var all []sdkmetric.View
	for _, name := range []string{
		"http.server.request.duration", "db.client.operation.duration",
		"millrace_*_duration_seconds", "millrace.*.duration",
	} {
		all = append(all, sdkmetric.NewView(
			sdkmetric.Instrument{Name: name, Kind: sdkmetric.InstrumentKindHistogram},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: durationEdges()}},
		))
	}
	return all
}
