package bios.coordinator;

import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;

/// The Prometheus metrics of this module; `docs/reference/metrics.md` documents each. The label `model` is
/// the slug of a base model, `operation` the kind of an operation in lower case, `code` an error code. Runs,
/// accounts and sessions are not labels, because their number is unbounded.
public final class Metrics {
    private static final double[] SECONDS =
            {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};

    /// Operations that this node has persisted in the journal.
    public static final Counter OPERATIONS_ACCEPTED = Counter.builder().name("bios_operations_accepted_total")
            .help("Operations of runs that this node has persisted in the journal.")
            .labelNames("model", "operation").register();

    /// Operations executed by the engine, replayed ones included.
    public static final Counter OPERATIONS_EXECUTED = Counter.builder().name("bios_operations_executed_total")
            .help("Operations of runs that the engine has executed, replayed ones included.")
            .labelNames("model", "operation").register();

    /// Operations accepted before a failure and replayed after it.
    public static final Counter OPERATIONS_REPLAYED = Counter.builder().name("bios_operations_replayed_total")
            .help("Operations accepted before a failure and replayed after it.")
            .labelNames("model", "operation").register();

    /// Operations that have failed permanently; `code` is the error code.
    public static final Counter OPERATIONS_FAILED = Counter.builder().name("bios_operations_failed_total")
            .help("Operations of runs that have failed for good, by code.")
            .labelNames("model", "code").register();

    /// Operations accepted and not finished, of the runs on this node.
    public static final Gauge OPERATIONS_UNFINISHED = Gauge.builder().name("bios_operations_unfinished")
            .help("Operations accepted and not finished, of the runs on this node.")
            .labelNames("model").register();

    /// Runs whose entity is in memory on this node.
    public static final Gauge RUNS_ACTIVE = Gauge.builder().name("bios_runs_active")
            .help("Runs that are in memory on this node.").labelNames("model").register();

    /// Recoveries of runs with operations to replay; `cause` is `restarted`, `engine_lost` or
    /// `operation_failed`.
    public static final Counter RUN_RECOVERIES = Counter.builder().name("bios_run_recoveries_total")
            .help("Recoveries of runs with operations to replay, by cause.")
            .labelNames("model", "cause").register();

    /// Runs opened on this node that were on another node before.
    public static final Counter RUNS_MOVED = Counter.builder().name("bios_runs_moved_total")
            .help("Runs opened on this node that were on another node before.").labelNames("model")
            .register();

    /// Seconds from the start of a run's recovery on this node until its replay is finished.
    public static final Histogram RUN_RECOVERY_SECONDS = Histogram.builder().name("bios_run_recovery_seconds")
            .help("Seconds from the start of a run's recovery on this node until its replay is finished.")
            .labelNames("model").classicOnly().classicUpperBounds(SECONDS).register();

    /// Runs of this node that wait for a fault to be repaired; `code` is the code of the fault.
    public static final Gauge RUNS_WAITING = Gauge.builder().name("bios_runs_waiting")
            .help("Runs of this node that wait for a fault to be repaired, by code.")
            .labelNames("model", "code").register();

    /// Failed attempts of the engine to open a run, retries included.
    public static final Counter RUN_OPEN_FAILURES = Counter.builder().name("bios_run_open_failures_total")
            .help("Failed attempts of the engine to open a run, retries included, by code.")
            .labelNames("model", "code").register();

    /// Snapshots and replaced versions that were no longer in use.
    public static final Counter WEIGHTS_RELEASED = Counter.builder().name("bios_weights_released_total")
            .help("Snapshots and replaced versions of checkpoints that were no longer in use.")
            .labelNames("model").register();

    /// Blobs that were found in the store and to which nothing referred.
    public static final Counter BLOBS_ABANDONED = Counter.builder().name("bios_blobs_abandoned_total")
            .help("Blobs that were found in the store and to which nothing referred.").labelNames("model")
            .register();

    /// Idle runs that were passivated and closed in the engine.
    public static final Counter RUNS_PASSIVATED = Counter.builder().name("bios_runs_passivated_total")
            .help("Idle runs that were passivated and closed in the engine.").labelNames("model").register();

    /// Recovery points that are durable.
    public static final Counter RECOVERY_POINTS = Counter.builder().name("bios_recovery_points_total")
            .help("Recovery points that are durable.").labelNames("model").register();

    /// Recovery points that could not be written.
    public static final Counter RECOVERY_POINT_FAILURES =
            Counter.builder().name("bios_recovery_point_failures_total")
            .help("Recovery points that could not be written.").labelNames("model").register();

    /// Bytes of the states of recovery points.
    public static final Counter RECOVERY_POINT_BYTES =
            Counter.builder().name("bios_recovery_point_bytes_total")
            .help("Bytes of the states of recovery points.").labelNames("model").register();

    /// Duration of recovery points, from the request to the engine until the journal holds the event.
    public static final Histogram RECOVERY_POINT_SECONDS =
            Histogram.builder().name("bios_recovery_point_seconds")
            .help("Seconds from the request for a recovery point until the journal holds it.")
            .labelNames("model").classicOnly().classicUpperBounds(SECONDS).register();

    /// Duration of journal writes; `entity` is `run` or `session`.
    public static final Histogram JOURNAL_WRITE_SECONDS = Histogram.builder()
            .name("bios_journal_write_seconds")
            .help("Seconds of a write to the journal, by kind of entity.")
            .labelNames("entity").classicOnly().classicUpperBounds(SECONDS).register();

    /// Failed accesses to the journal; `action` is `write`, `recover` or `snapshot`.
    public static final Counter JOURNAL_FAILURES = Counter.builder().name("bios_journal_failures_total")
            .help("Writes, recoveries and snapshots that failed in the journal.")
            .labelNames("entity", "action").register();

    /// Unfinished sampling requests of this coordinator.
    public static final Gauge SAMPLING_REQUESTS_UNFINISHED =
            Gauge.builder().name("bios_sampling_requests_unfinished")
            .help("Sampling requests that this coordinator has accepted and not finished.").register();

    /// HTTP requests answered; `route` is a pattern such as `training_runs/*`, or `none` for an unknown path.
    public static final Counter HTTP_REQUESTS = Counter.builder().name("bios_http_requests_total")
            .help("HTTP requests answered, by route and status.")
            .labelNames("method", "route", "status").register();

    /// Seconds until the response of an HTTP request begins; a long poll includes the time that it waits.
    public static final Histogram HTTP_REQUEST_SECONDS = Histogram.builder().name("bios_http_request_seconds")
            .help("Seconds until the response of an HTTP request begins, long polls with their wait.")
            .labelNames("route").classicOnly().classicUpperBounds(SECONDS).register();

    /// Requests answered 429.
    public static final Counter HTTP_THROTTLED = Counter.builder().name("bios_http_throttled_total")
            .help("HTTP requests answered 429, by code.").labelNames("code").register();

    /// Heap bytes that requests and large responses in progress hold.
    public static final Gauge REQUEST_BYTES = Gauge.builder().name("bios_request_bytes")
            .help("Heap bytes that requests and large responses in progress hold.").register();

    /// Requests of the actor protocol; `request` is a request's name, e.g. `Submit`.
    public static final Counter ACTOR_REQUESTS = Counter.builder().name("bios_actor_requests_total")
            .help("Requests of the actor protocol that were carried out, by name.")
            .labelNames("request").register();

    /// Sessions of JVM clients.
    public static final Gauge ACTOR_SESSIONS = Gauge.builder().name("bios_actor_sessions")
            .help("Sessions of JVM clients at this gateway.").register();

    /// Connections of JVM clients.
    public static final Gauge ACTOR_CONNECTIONS = Gauge.builder().name("bios_actor_connections")
            .help("TCP connections to the port of the actor protocol.").register();

    /// Connections that were refused or ended; `reason` is `connections`, `address`, `header` or `frame`.
    public static final Counter ACTOR_CONNECTIONS_REFUSED = Counter.builder()
            .name("bios_actor_connections_refused_total")
            .help("TCP connections to the port of the actor protocol that were refused or ended.")
            .labelNames("reason").register();

    /// Members of the cluster as this node sees them; `status` is the status in Pekko, in lower case.
    public static final Gauge CLUSTER_MEMBERS = Gauge.builder().name("bios_cluster_members")
            .help("Members of the cluster as this node sees them, by status.")
            .labelNames("status").register();

    /// Members that are unreachable from this node.
    public static final Gauge CLUSTER_UNREACHABLE_MEMBERS =
            Gauge.builder().name("bios_cluster_unreachable_members")
            .help("Members of the cluster that are unreachable.").register();

    /// The result of each readiness check at the scrape, 1 or 0; `check` is the name of a check.
    public static final Gauge READINESS = Gauge.builder().name("bios_ready")
            .help("1 if this readiness check passes at the scrape, else 0.")
            .labelNames("check").register();

    private Metrics() {}
}
