package bios.worker.engine;

import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;

/// Metrics of the engine, in the process's one registry; `docs/reference/metrics.md` says what each means.
/// `model` is the slug of a base model.
public final class Metrics {
    private static final double[] SECONDS =
            {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

    /// Runs that the engine has opened.
    public static final Counter OPENED = Counter.builder().name("bios_engine_runs_opened_total")
            .help("Runs opened; from is new or recovery_point.")
            .labelNames("model", "from").register();

    /// Runs that the engine has closed; `reason` is `closed`, `failed` or `evicted`.
    public static final Counter LEFT = Counter.builder().name("bios_engine_runs_left_total")
            .help("Runs closed, by reason.")
            .labelNames("model", "reason").register();

    /// Runs that are open in the engine.
    public static final Gauge OPEN = Gauge.builder().name("bios_engine_runs_open")
            .help("Runs that are open in the engine.").labelNames("model").register();

    /// Passes through the model; `kind` is `train` or `sample`.
    public static final Counter PASSES = Counter.builder().name("bios_engine_passes_total")
            .help("Passes through the model, of training and of sampling.")
            .labelNames("model", "kind").register();

    /// Duration of a pass on the device.
    public static final Histogram PASS_SECONDS = Histogram.builder().name("bios_engine_pass_seconds")
            .help("Seconds of a pass through the model on the device.")
            .labelNames("kind").classicOnly().classicUpperBounds(SECONDS).register();

    /// Tokens of `forward` and `forward_backward`.
    public static final Counter TRAINED = Counter.builder().name("bios_engine_tokens_trained_total")
            .help("Tokens of forward and forward_backward.")
            .labelNames("model").register();

    /// Optimizer steps that changed no weight.
    public static final Counter SKIPPED_STEPS = Counter.builder().name("bios_engine_steps_skipped_total")
            .help("Optimizer steps that were skipped because a number was not finite.")
            .labelNames("model").register();

    /// Sampled tokens.
    public static final Counter SAMPLED = Counter.builder().name("bios_engine_tokens_sampled_total")
            .help("Sampled tokens of finished requests.")
            .labelNames("model").register();

    /// Tokens of prompts of finished sampling requests.
    public static final Counter PROMPTS = Counter.builder().name("bios_engine_tokens_prompted_total")
            .help("Tokens of the prompts of finished sampling requests.").labelNames("model").register();

    /// Sequences that wait or decode.
    public static final Gauge SAMPLING = Gauge.builder().name("bios_engine_sampling_sequences")
            .help("Sequences that wait or decode.").register();

    /// Memory of the device; `state` is `in_use` or `limit`.
    public static final Gauge DEVICE_MEMORY = Gauge.builder().name("bios_engine_device_memory_bytes")
            .help("Bytes of the device's memory, in use or the limit.").labelNames("state").register();

    /// Saves and recovery points that are being written.
    public static final Gauge COPIES = Gauge.builder().name("bios_engine_copies_in_writing")
            .help("Copies of runs' states that are being written to the blob store.").register();

    /// Base models that the engine was given; `state` is `served` or `unserved`.
    public static final Gauge MODELS = Gauge.builder().name("bios_engine_models")
            .help("Base models that the engine was given, served or not.").labelNames("state").register();

    private Metrics() {}
}
