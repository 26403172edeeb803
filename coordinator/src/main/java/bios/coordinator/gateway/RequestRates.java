package bios.coordinator.gateway;

import bios.coordinator.OwnerLimits;
import java.util.Map;
import java.util.function.LongSupplier;

/// How many requests each account sends to this coordinator: a bucket of tokens for each, which fills at the
/// rate of its limit. Thread-safe.
final class RequestRates {
    private static final double NANOS = 1e9;
    private static final int REMEMBERED = 10_000;

    private static final class Bucket {
        double tokens;
        long filled;
    }

    private final OwnerLimits limits;
    private final LongSupplier nanos;
    private final Map<String, Bucket> buckets = LruMap.of(REMEMBERED);

    /// @param nanos monotonic clock
    RequestRates(OwnerLimits limits, LongSupplier nanos) {
        this.limits = limits;
        this.nanos = nanos;
    }

    /// Counts a request; throws an [ApiException] if the account has sent too many.
    void count(String account) {
        OwnerLimits.Limit limit = limits.of(account);
        if (limit.requestsPerSecond() == 0) return;
        Bucket bucket = buckets.computeIfAbsent(account, _ -> full(limit));
        synchronized (bucket) {
            long now = nanos.getAsLong();
            bucket.tokens = Math.min(limit.burst(),
                    bucket.tokens + (now - bucket.filled) / NANOS * limit.requestsPerSecond());
            bucket.filled = now;
            if (bucket.tokens < 1) throw new ApiException(ErrorCode.RATE_LIMITED, "account '" + account
                    + "' may send " + limit.requestsPerSecond() + " requests per second"
                    + " (bios.gateway.limits.requests-per-second); retry later");
            bucket.tokens--;
        }
    }

    private Bucket full(OwnerLimits.Limit limit) {
        var bucket = new Bucket();
        bucket.tokens = limit.burst();
        bucket.filled = nanos.getAsLong();
        return bucket;
    }
}
