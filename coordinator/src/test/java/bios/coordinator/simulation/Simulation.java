package bios.coordinator.simulation;

import bios.coordinator.run.RunSettings;
import bios.protocol.run.RunId;
import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.actor.Props;
import org.apache.pekko.actor.Terminated;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.slf4j.LoggerFactory;

/// Plays histories of runs, one for each seed, on an actor system without threads: real entities, models of
/// everything around them, and an oracle that checks every event.
final class Simulation {
    private static final int MAX_STEPS = 400_000;
    private static final long FAULTS_END = 45_000;
    private static final long TIME_LIMIT = 20 * 60_000;

    /// The result of a history.
    ///
    /// @param violation the first violation
    /// @param trace the trace, if it was requested
    record Outcome(long seed, Optional<String> violation, List<String> trace, long steps, long millis) {}

    /// Reports entities that stop to the cluster.
    private static final class StopWatcher extends AbstractActor {
        private final EventLoop loop;

        StopWatcher(EventLoop loop) {
            this.loop = loop;
        }

        @Override public Receive createReceive() {
            return receiveBuilder()
                    .match(Terminated.class, gone -> loop.current(SimulatedCluster.class)
                            .ended(Adapter.toTyped(gone.getActor())))
                    .match(ActorRef.class, ref -> getContext().watch(Adapter.toClassic(ref))).build();
        }
    }

    private final EventLoop loop;
    private final ActorSystem system;
    private final org.apache.pekko.actor.ActorRef stopWatcher;

    private Simulation(EventLoop loop, ActorSystem system) {
        this.loop = loop;
        this.system = system;
        this.stopWatcher = system.actorOf(Props.create(StopWatcher.class, () -> new StopWatcher(loop)));
    }

    /// Runs `work` without logs: faults are expected.
    private static void withoutLogs(Runnable work) {
        var root = (Logger) LoggerFactory.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
        Level before = root.getLevel();
        root.setLevel(Level.OFF);
        try {
            work.run();
        } finally {
            root.setLevel(before);
        }
    }

    /// @param name name of the event loop and the actor system
    static Simulation open(String name) {
        EventLoop loop = EventLoop.of(name);
        Config own = ConfigFactory.parseString("""
                pekko {
                  actor.provider = local
                  use-slf4j = off
                  loglevel = OFF
                  stdout-loglevel = OFF
                  log-dead-letters = off
                  jvm-shutdown-hooks = off
                  coordinated-shutdown.run-by-actor-system-terminate = off
                  coordinated-shutdown.run-by-jvm-shutdown-hook = off
                  scheduler.implementation = "bios.coordinator.simulation.EventLoopScheduler"
                  actor.default-dispatcher {
                    type = Dispatcher
                    executor = "bios.coordinator.simulation.EventLoopExecutor"
                    event-loop = "%1$s"
                    throughput = 1
                    throughput-deadline-time = 0
                  }
                  actor.internal-dispatcher = "pekko.actor.default-dispatcher"
                  actor.default-blocking-io-dispatcher = ${pekko.actor.default-dispatcher}
                  persistence.journal.plugin = "simulated-journal"
                  persistence.snapshot-store.plugin = "simulated-snapshots"
                  persistence.max-concurrent-recoveries = 1000
                }
                simulated-journal {
                  class = "bios.coordinator.simulation.JournalActor"
                  plugin-dispatcher = "pekko.actor.default-dispatcher"
                }
                simulated-snapshots {
                  class = "bios.coordinator.simulation.SnapshotActor"
                  plugin-dispatcher = "pekko.actor.default-dispatcher"
                }
                bios.simulation.event-loop = "%1$s"
                """.formatted(name));
        loop.begin(0, false);
        Config all = own.withFallback(ConfigFactory.defaultReferenceUnresolved()).resolve();
        var simulation = loop.start(() -> new Simulation(loop, ActorSystem.create(name, all)));
        // The first history initializes lazy parts of Pekko, which would change its trace; it is discarded.
        simulation.play(0, Mutation.NONE, false);
        return simulation;
    }

    Outcome play(long seed, Mutation mutation, boolean traced) {
        loop.begin(seed, traced);
        boolean loads = loop.oneIn(2);
        boolean calm = loop.oneIn(8);
        Config settings = settings(loads, calm);
        var cluster = new SimulatedCluster(loop, system, mutation, RunSettings.from(settings),
                RunSettings.from(mutated(mutation, settings)), calm, ref -> stopWatcher.tell(ref,
                org.apache.pekko.actor.ActorRef.noSender()));
        loop.play(cluster);
        withoutLogs(() -> {
            try {
                play(cluster, loads, calm);
            } catch (Violation found) {
                cluster.violated(found.getMessage());
            }
        });
        long steps = loop.steps();
        long millis = loop.now() - EventLoop.BEGIN;
        var trace = loop.traced();
        withoutLogs(() -> {
            cluster.end();
            loop.end();
        });
        return new Outcome(seed, cluster.violation(), trace, steps, millis);
    }

    private static Config mutated(Mutation mutation, Config settings) {
        String changed = switch (mutation) {
            case LEASES_ARE_SHORT -> "unnamed-weights.lease = 1 s";
            case LEASES_DO_NOT_END -> "unnamed-weights.lease = 10 days";
            case SUBMISSION_HIDES_ITS_AGE -> "sweep-after = 1 s";
            default -> "";
        };
        return ConfigFactory.parseString("bios.run { " + changed + " }").withFallback(settings);
    }

    /// @param loads whether a run loads checkpoints of another one: unless nothing is lost between them, a
    ///     lease is then longer than all faults
    private Config settings(boolean loads, boolean calm) {
        long lease = loads && !calm ? loop.between(400, 480) : loop.between(calm ? 7 : 5, calm ? 12 : 60);
        return ConfigFactory.parseString("""
                bios.run { recovery-point { steps = %d, operations = %d }, window = %d, retry-after = 2 s
                  idle-after = 20 s, sweep-after = %d s, attempts = %d, max-unfinished = %d
                  results.max-count = %d
                  unnamed-weights { lease = %d s, newest-snapshots = %d, max-count = %d } }
                """.formatted(loop.between(1, 5), loop.between(3, 12),
                loop.between(1, 6), loop.between(10, 60), loop.between(2, 3),
                loop.oneIn(4) ? 4 : 100, loop.oneIn(8) ? 6 : 4096, lease, loop.below(4),
                loop.between(1, 6)))
                .withFallback(system.settings().config());
    }

    private void play(SimulatedCluster cluster, boolean loads, boolean calm) {
        boolean alone = loop.oneIn(2);
        boolean fatal = !calm && loop.oneIn(2);
        var first = new RunId("usf-finance-9f2c4be01a01");
        var second = new RunId("usf-finance-9f2c4be01a02");
        var clients = new ArrayList<Client>();
        clients.add(new Client(cluster, first, loads ? Optional.of(second) : Optional.empty(),
                (int) loop.between(5, alone ? 40 : 25), fatal, false));
        if (!alone)
            clients.add(new Client(cluster, second, Optional.empty(), (int) loop.between(5, 25), fatal,
                    loads));
        cluster.begin();
        clients.forEach(Client::begin);
        loop.in(FAULTS_END, cluster::endFaults);
        until(cluster, () -> cluster.faults.ended && clients.stream().allMatch(Client::over), () ->
                "what was accepted is not finished: " + clients.stream().map(Client::waits).toList());
        clients.forEach(Client::compareAgain);
        until(cluster, () -> clients.stream().allMatch(Client::described), () -> "a run does not answer");
        until(cluster, () -> clients.stream().allMatch(c -> cluster.isPassivated(c.run())),
                () -> "a run does not rest");
        for (Client client : clients) judgeEnd(cluster, client.run());
    }

    private void judgeEnd(SimulatedCluster cluster, RunId run) {
        cluster.oracle(run).settled();
        if (cluster.oracle(run).unsettledOperations() > 0)
            cluster.violated("run " + run + " rests with " + cluster.oracle(run).unsettledOperations()
                    + " operations behind its recovery point");
    }

    private interface Condition {
        boolean holds();
    }

    private interface Words {
        String say();
    }

    private void until(SimulatedCluster cluster, Condition over, Words otherwise) {
        long deadline = loop.now() + TIME_LIMIT;
        while (!over.holds()) {
            if (!loop.step() || loop.now() > deadline || loop.steps() > MAX_STEPS) {
                cluster.violated(otherwise.say());
            }
            if (cluster.violation().isPresent()) throw new Violation(cluster.violation().get());
        }
    }
}
