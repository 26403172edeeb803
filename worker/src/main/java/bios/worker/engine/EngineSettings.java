package bios.worker.engine;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.sample.SamplerSettings;
import bios.worker.train.NonFinite;
import com.typesafe.config.Config;
import java.util.OptionalLong;

/// Limits of an [Engine], as `bios.engine` in reference.conf explains them.
///
/// @param trainPassTokens about how many tokens of training go through one pass
/// @param activationBytes most bytes of activations that a pass keeps for its backward, per base model;
///     empty: by the size of the device
/// @param longSequenceBytes the same for a pass of one sequence that is too long for these
/// @param copiesPerRun most copies of a run's state that are being written at once
/// @param preparedPerRun operations of a run that are decoded ahead of their turn
/// @param runs room for the states of runs
/// @param adapterBytes bytes of adapters kept for sampling
/// @param sampler limits of decoding, per base model
/// @param maxQueuedSequences most sequences that wait or decode
/// @param nonFinite what operations of training do whose numbers are not finite
public record EngineSettings(int trainPassTokens, OptionalLong activationBytes,
        OptionalLong longSequenceBytes, int copiesPerRun, int preparedPerRun, Runs runs, long adapterBytes,
        SamplerSettings sampler, int maxQueuedSequences, NonFinite nonFinite) {
    /// Room for runs.
    ///
    /// @param deviceBytes of states on the device; empty: half of what [DeviceExecutor] finds free
    /// @param hostBytes of recovery points in the host's memory; empty: a quarter of it if the device has
    ///     memory of its own, else nothing
    /// @param heapBytes of the Java heap for operations that are decoded ahead, and as much for the buffers
    ///     through which states stream; empty: a quarter of it
    /// @param maxWaiting most runs that wait for room on the device
    public record Runs(OptionalLong deviceBytes, OptionalLong hostBytes, OptionalLong heapBytes,
            int maxWaiting) {
        /// All limits derived from the machine.
        public static final Runs AUTO =
                new Runs(OptionalLong.empty(), OptionalLong.empty(), OptionalLong.empty(), 1024);

        public Runs {
            require(deviceBytes.orElse(1) > 0 && hostBytes.orElse(0) >= 0 && heapBytes.orElse(1) > 0
                    && maxWaiting > 0, "room for runs is positive");
        }

        /// Bytes of the Java heap for operations that are decoded ahead; the same for buffers.
        long heapLimit() {
            return heapBytes.orElse(Runtime.getRuntime().maxMemory() / 4);
        }

        private static Runs of(Config own) {
            return new Runs(bytes(own, "run-bytes"), bytes(own, "host-run-bytes"), bytes(own, "heap-bytes"),
                    own.getInt("max-waiting-runs"));
        }

    }

    private static OptionalLong bytes(Config own, String name) {
        return own.getString(name).equals("auto")
                ? OptionalLong.empty() : OptionalLong.of(own.getBytes(name));
    }

    public EngineSettings {
        require(trainPassTokens > 0 && activationBytes.orElse(0) >= 0 && longSequenceBytes.orElse(0) >= 0
                && copiesPerRun > 0 && preparedPerRun > 0 && adapterBytes > 0 && maxQueuedSequences > 0,
                "limits of an engine are positive");
    }

    /// Reads `bios.engine` of a program's configuration.
    public static EngineSettings of(Config program) {
        Config own = program.getConfig("bios.engine");
        Config sampler = own.getConfig("sampler");
        SamplerSettings decoding = SamplerSettings.of(sampler);
        return new EngineSettings(own.getInt("train-pass-tokens"), bytes(own, "activation-bytes"),
                bytes(own, "long-sequence-bytes"),
                own.getInt("copies-per-run"), own.getInt("prepared-per-run"), Runs.of(own),
                own.getBytes("adapter-bytes"),
                decoding, sampler.getInt("max-queued-sequences"), NonFinite.of(own.getString("non-finite")));
    }

    /// [#activationBytes] on a device: 640 MiB on a CPU, a quarter of [SamplerSettings#size] on a card.
    long activationBytes(Device device) {
        return activationBytes.orElse(device.ownMemory() ? SamplerSettings.size(device) / 4 : 640L << 20);
    }

    /// [#longSequenceBytes] on a device: 2560 MiB on a CPU, three eighths of [SamplerSettings#size] on a
    /// card.
    long longSequenceBytes(Device device) {
        return longSequenceBytes.orElse(device.ownMemory() ? SamplerSettings.size(device) / 8 * 3
                : 2560L << 20);
    }
}
