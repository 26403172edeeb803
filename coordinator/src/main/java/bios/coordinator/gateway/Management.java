package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.coordinator.health.Check;
import io.prometheus.metrics.expositionformats.PrometheusTextFormatWriter;
import io.prometheus.metrics.instrumentation.jvm.JvmMetrics;
import io.prometheus.metrics.model.registry.PrometheusRegistry;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.StreamSupport;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.Member;
import org.apache.pekko.cluster.MemberStatus;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.http.javadsl.Http;
import org.apache.pekko.http.javadsl.ServerBinding;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpMethods;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.japi.function.Function;

/// The management endpoints of a node, without authentication: `/healthz` (liveness), `/readyz` (readiness)
/// and `/metrics` (Prometheus text format). The gateway serves them beside the protocol; a node without a
/// gateway serves them alone.
public final class Management {
    private static final Duration DRAIN = Duration.ofSeconds(1);
    private static final List<MemberStatus> STATUSES = List.of(MemberStatus.joining(),
            MemberStatus.weaklyUp(), MemberStatus.up(), MemberStatus.leaving(), MemberStatus.exiting(),
            MemberStatus.down());

    private final ActorSystem<?> system;
    private final List<Check> checks;

    /// @param checks conditions of readiness
    public Management(ActorSystem<?> system, List<Check> checks) {
        this.system = system;
        this.checks = List.copyOf(checks);
        JvmMetricsOnce.register();
    }

    /// Registers the metrics of the JVM and the process, once.
    private static final class JvmMetricsOnce {
        static {
            JvmMetrics.builder().register();
        }

        private JvmMetricsOnce() {}

        static void register() {
            // the static initializer does the work
        }
    }

    /// Serves the three endpoints on `host` and `port` (0: any free port) until the system terminates.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            List<Check> checks) {
        var management = new Management(system, checks);
        Function<HttpRequest, CompletionStage<HttpResponse>> answers = request ->
                management.answer(request).orElseGet(() -> {
                    request.discardEntityBytes(system);
                    return CompletableFuture.completedStage(HttpResponse.create().withStatus(404)
                            .withEntity("this port serves /healthz, /readyz and /metrics\n"));
                });
        return Http.get(system).newServerAt(host, port).bind(answers)
                .thenApply(binding -> binding.addToCoordinatedShutdown(DRAIN, system));
    }

    /// The response, if the request is for one of the three endpoints.
    Optional<CompletionStage<HttpResponse>> answer(HttpRequest request) {
        if (!request.method().equals(HttpMethods.GET)) return Optional.empty();
        HttpResponse response = switch (request.getUri().path()) {
            case "/healthz" -> json(200, ApiResponse.object("status", "ok"));
            case "/readyz" -> ready();
            case "/metrics" -> metrics();
            default -> null;
        };
        if (response == null) return Optional.empty();
        request.discardEntityBytes(system);
        return Optional.of(CompletableFuture.completedStage(response));
    }

    private HttpResponse ready() {
        var answers = new ArrayList<Map<String, Object>>();
        boolean all = true;
        for (Check check : checks) {
            Optional<String> problem = problem(check);
            all &= problem.isEmpty();
            answers.add(ApiResponse.object("check", check.name(), "ok", problem.isEmpty(), "message",
                    problem));
        }
        return json(all ? 200
                : 503, ApiResponse.object("status", all ? "ready" : "not_ready", "checks", answers));
    }

    private static Optional<String> problem(Check check) {
        try {
            return check.problem().get();
        } catch (RuntimeException failed) {
            return Optional.of("the check failed: " + failed);
        }
    }

    private HttpResponse metrics() {
        for (Check check : checks)
            Metrics.READINESS.labelValues(check.name()).set(problem(check).isEmpty() ? 1 : 0);
        members();
        var text = new ByteArrayOutputStream();
        try {
            PrometheusTextFormatWriter.create().write(text, PrometheusRegistry.defaultRegistry.scrape());
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        return HttpResponse.create().withEntity(
                ContentTypes.parse(PrometheusTextFormatWriter.CONTENT_TYPE), text.toByteArray());
    }

    private void members() {
        if (!system.settings().config().getString("pekko.actor.provider").contains("luster")) return;
        var state = Cluster.get(system).state();
        var counts = new TreeMap<String, Integer>();
        STATUSES.forEach(status -> counts.put(word(status), 0));
        StreamSupport.stream(state.getMembers().spliterator(), false).map(Member::status)
                .forEach(status -> counts.merge(word(status), 1, Integer::sum));
        counts.forEach((status, count) -> Metrics.CLUSTER_MEMBERS.labelValues(status).set(count));
        Metrics.CLUSTER_UNREACHABLE_MEMBERS.set(state.getUnreachable().size());
    }

    private static String word(MemberStatus status) {
        return status.toString().toLowerCase(Locale.ROOT);
    }

    private static HttpResponse json(int status, Object body) {
        return HttpResponse.create().withStatus(status)
                .withEntity(ContentTypes.APPLICATION_JSON, JsonWriter.write(body));
    }
}
