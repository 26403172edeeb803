package bios.coordinator.sampling;

import com.typesafe.config.Config;
import java.time.Duration;

/// The limits of a sampling router: block `bios.sampling` of the configuration.
///
/// @param maxWaiting most unfinished requests
/// @param maxWaitingPerAccount most unfinished requests of one account
/// @param maxWaitingBytes most bytes of unfinished prompts
/// @param maxResultBytes most bytes of results kept for retrieval
/// @param resultAge how long a result is kept
/// @param engineWindow most sequences assigned to one engine
/// @param adapterSlack how many sequences more an engine may have that already holds the adapter
/// @param maxAttempts after the same fault of the service this many times in a row a request fails
/// @param requestAge how long an accepted request is stored for other coordinators
/// @param resendAfter a request without an answer is sent to its engine again after this time
public record SamplingSettings(int maxWaiting, int maxWaitingPerAccount, long maxWaitingBytes,
        long maxResultBytes, Duration resultAge, int engineWindow, int adapterSlack, int maxAttempts,
        Duration requestAge, Duration resendAfter) {
    /// Reads the block `bios.sampling`.
    public static SamplingSettings of(Config block) {
        long share = Runtime.getRuntime().maxMemory() / 16;
        return new SamplingSettings(block.getInt("max-waiting"), block.getInt("max-waiting-per-account"),
                Math.min(share, block.getBytes("max-waiting-bytes")),
                Math.min(share, block.getBytes("max-result-bytes")),
                block.getDuration("result-age"), block.getInt("engine-window"), block.getInt("adapter-slack"),
                block.getInt("max-attempts"), block.getDuration("request-age"),
                block.getDuration("resend-after"));
    }
}
