package bios.coordinator;

import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;

/// What this module counts, in the process's one registry; `docs/reference/metrics.md` says what each means.
/// `model` is the slug of a base model, `operation` the kind of an operation in lower case, `code` a code of
/// `docs/reference/errors.md`. Nothing is counted by run, account or session: they have no bound.
public final class Metrics {
    private static final double[] SECONDS =
            {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};

    /// Operations that the journal holds.
    public static final Counter ACCEPTED = Counter.builder().name("bios_operations_accepted_total")
            .help("Operations of runs that the journal of this node has accepted.")
            .labelNames("model", "operation").register();

    /// Operations that the engine has executed, those of a replay among them.
    public static final Counter EXECUTED = Counter.builder().name("bios_operations_executed_total")
            .help("Operations of runs that the engine has executed, replayed ones among them.")
            .labelNames("model", "operation").register();

    /// Operations accepted before a failure and executed behind it.
    public static final Counter REPLAYED = Counter.builder().name("bios_operations_replayed_total")
            .help("Operations accepted before a failure and executed after it.")
            .labelNames("model", "operation").register();

    /// Operations that have failed for good.
    public static final Counter FAILED = Counter.builder().name("bios_operations_failed_total")
            .help("Operations of runs that have failed for good, by code.")
            .labelNames("model", "code").register();

    /// Operations accepted and not finished, of the runs that live on this node.
    public static final Gauge UNFINISHED = Gauge.builder().name("bios_operations_unfinished")
            .help("Operations accepted and not finished, of the runs on this node.")
            .labelNames("model").register();

    /// Runs whose entity is in memory on this node.
    public static final Gauge RUNS = Gauge.builder().name("bios_runs_active")
            .help("Runs that are in memory on this node.").labelNames("model").register();

    /// Recoveries that began; `cause` is `restarted`, `engine_lost` or `operation_failed`.
    public static final Counter RECOVERIES = Counter.builder().name("bios_run_recoveries_total")
            .help("Runs that had operations to execute again after a failure, by cause.")
            .labelNames("model", "cause").register();

    /// Runs that opened on another node than before.
    public static final Counter MOVED = Counter.builder().name("bios_runs_moved_total")
            .help("Runs that opened on this node and were on another before.").labelNames("model").register();

    /// From the loss of a run's state until all is done again.
    public static final Histogram RECOVERY_SECONDS = Histogram.builder().name("bios_run_recovery_seconds")
            .help("Seconds from the beginning of a run's recovery on this node until its replay is finished.")
            .labelNames("model").classicOnly().classicUpperBounds(SECONDS).register();

    /// Runs that cannot go on until something is mended.
    public static final Gauge WAITING = Gauge.builder().name("bios_runs_waiting")
            .help("Runs of this node that cannot go on until something is mended, by code.")
            .labelNames("model", "code").register();

    /// Tries to open a run that failed.
    public static final Counter OPEN_FAILURES = Counter.builder().name("bios_run_open_failures_total")
            .help("Times that the engine could not open a run, retries among them, by code.")
            .labelNames("model", "code").register();

    /// Runs that were idle and left memory.
    public static final Counter PASSIVATED = Counter.builder().name("bios_runs_passivated_total")
            .help("Runs that were idle and left memory and engine.").labelNames("model").register();

    /// Recovery points that are durable.
    public static final Counter RECOVERY_POINTS = Counter.builder().name("bios_recovery_points_total")
            .help("Recovery points that are durable.").labelNames("model").register();

    /// Recovery points that came to nothing.
    public static final Counter RECOVERY_POINT_FAILURES =
            Counter.builder().name("bios_recovery_point_failures_total")
            .help("Recovery points that could not be written.").labelNames("model").register();

    /// The bytes of their states.
    public static final Counter RECOVERY_POINT_BYTES =
            Counter.builder().name("bios_recovery_point_bytes_total")
            .help("Bytes of the states of recovery points.").labelNames("model").register();

    /// From the order to the engine until the journal holds it.
    public static final Histogram RECOVERY_POINT_SECONDS =
            Histogram.builder().name("bios_recovery_point_seconds")
            .help("Seconds from the order of a recovery point until the journal holds it.")
            .labelNames("model").classicOnly().classicUpperBounds(SECONDS).register();

    /// From the decision to store events until the journal holds them; `entity` is `run` or `session`.
    public static final Histogram JOURNAL_SECONDS = Histogram.builder().name("bios_journal_write_seconds")
            .help("Seconds of a write to the journal, by kind of entity; its count is that of writes.")
            .labelNames("entity").classicOnly().classicUpperBounds(SECONDS).register();

    /// Writes and recoveries that the journal refused; `action` is `write`, `recover` or `snapshot`.
    public static final Counter JOURNAL_FAILURES = Counter.builder().name("bios_journal_failures_total")
            .help("Writes, recoveries and snapshots that the journal refused or did not answer.")
            .labelNames("entity", "action").register();

    /// Sampling requests of this coordinator that are not answered.
    public static final Gauge SAMPLING_UNFINISHED = Gauge.builder().name("bios_sampling_requests_unfinished")
            .help("Sampling requests that this coordinator has accepted and not answered.").register();

    /// HTTP requests; `route` is a pattern such as `training_runs/*`, `none` where nothing is.
    public static final Counter HTTP_REQUESTS = Counter.builder().name("bios_http_requests_total")
            .help("HTTP requests answered, by route and status.")
            .labelNames("method", "route", "status").register();

    /// How long answers took, long polls with their wait.
    public static final Histogram HTTP_SECONDS = Histogram.builder().name("bios_http_request_seconds")
            .help("Seconds until the answer of an HTTP request begins; long polls with their wait.")
            .labelNames("route").classicOnly().classicUpperBounds(SECONDS).register();

    /// Requests answered 429.
    public static final Counter HTTP_THROTTLED = Counter.builder().name("bios_http_throttled_total")
            .help("HTTP requests answered 429, by code.").labelNames("code").register();

    /// Members of the cluster as this node sees them; `status` is that of Pekko in lower case.
    public static final Gauge CLUSTER_MEMBERS = Gauge.builder().name("bios_cluster_members")
            .help("Members of the cluster as this node sees them, by status.")
            .labelNames("status").register();

    /// Members that this node sees as unreachable.
    public static final Gauge CLUSTER_UNREACHABLE = Gauge.builder().name("bios_cluster_unreachable_members")
            .help("Members of the cluster that are unreachable.").register();

    /// What the checks of readiness say; `check` is the name of one.
    public static final Gauge READY = Gauge.builder().name("bios_ready")
            .help("1 if this check of readiness passes at the scrape, else 0.")
            .labelNames("check").register();

    private Metrics() {}
}
