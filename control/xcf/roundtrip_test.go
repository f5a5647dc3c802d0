package xcf

import (
	"testing"
	"time"
)

// BenchmarkRoundTrip reports the round trip of a 700-octet message on loopback, about what a transfer's commit has.
func BenchmarkRoundTrip(b *testing.B) {
	trips, err := MeasureRoundTrips(b.Context(), b.TempDir(), b.N, 700)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(trips.Quantile(0.5))/float64(time.Microsecond), "p50-us")
	b.ReportMetric(float64(trips.Quantile(0.99))/float64(time.Microsecond), "p99-us")
}

func TestMeasureRoundTripsReturnsEachTripSorted(t *testing.T) {
	trips, err := MeasureRoundTrips(t.Context(), t.TempDir(), 50, 700)
	if err != nil {
		t.Fatal(err)
	}
	if len(trips) != 50 || trips[0] <= 0 || trips.Quantile(0.5) > trips.Quantile(1) {
		t.Errorf("%d trips, first %s, median %s, last %s", len(trips), trips[0], trips.Quantile(0.5), trips.Quantile(1))
	}
}
