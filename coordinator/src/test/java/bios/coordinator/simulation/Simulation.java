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

/// Histories of runs, one for each seed, on an actor system without threads: the real entities among models
/// of everything around them, and an oracle that sees every event.
final class Simulation {
    private static final int MAX_STEPS = 400_000;
    private static final long FAULTS_END = 45_000;
    private static final long PATIENCE = 20 * 60_000;

    /// How a history went.
    ///
    /// @param violation the first promise that was not kept
    /// @param trace what happened, if it was asked for
    record Outcome(long seed, Optional<String> violation, List<String> trace, long steps, long millis) {}

    /// Tells the world of entities that stop.
    private static final class StopWatcher extends AbstractActor {
        private final Stage stage;

        StopWatcher(Stage stage) {
            this.stage = stage;
        }

        @Override public Receive createReceive() {
            return receiveBuilder().match(Terminated.class, gone ->
                    stage.current(World.class).ended(Adapter.toTyped(gone.getActor()))).match(ActorRef.class,
                            ref -> getContext().watch(Adapter.toClassic(ref))).build();
        }
    }

    private final Stage stage;
    private final ActorSystem system;
    private final org.apache.pekko.actor.ActorRef stopWatcher;

    private Simulation(Stage stage, ActorSystem system) {
        this.stage = stage;
        this.system = system;
        this.stopWatcher = system.actorOf(Props.create(StopWatcher.class, () -> new StopWatcher(stage)));
    }

    /// What entities log while everything around them fails says nothing.
    private static void quietly(Runnable work) {
        var root = (Logger) LoggerFactory.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
        Level before = root.getLevel();
        root.setLevel(Level.OFF);
        try {
            work.run();
        } finally {
            root.setLevel(before);
        }
    }

    /// @param name of the stage and the actor system
    static Simulation open(String name) {
        Stage stage = Stage.of(name);
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
                  scheduler.implementation = "bios.coordinator.simulation.StageScheduler"
                  actor.default-dispatcher {
                    type = Dispatcher
                    executor = "bios.coordinator.simulation.StageExecutor"
                    stage = "%1$s"
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
                bios.simulation.stage = "%1$s"
                """.formatted(name));
        stage.begin(0, false);
        Config all = own.withFallback(ConfigFactory.defaultReferenceUnresolved()).resolve();
        var simulation = stage.start(() -> new Simulation(stage, ActorSystem.create(name, all)));
        // What Pekko begins when it is first needed must not make the first history another one.
        simulation.play(0, Mutation.NONE, false);
        return simulation;
    }

    Outcome play(long seed, Mutation mutation, boolean traced) {
        stage.begin(seed, traced);
        var world = new World(stage, system, mutation, settings(), ref -> stopWatcher.tell(ref,
                org.apache.pekko.actor.ActorRef.noSender()));
        stage.play(world);
        quietly(() -> {
            try {
                play(world);
            } catch (Violation found) {
                world.violated(found.getMessage());
            }
        });
        long steps = stage.steps();
        long millis = stage.now() - Stage.BEGIN;
        var trace = stage.traced();
        quietly(() -> {
            world.end();
            stage.end();
        });
        return new Outcome(seed, world.violation(), trace, steps, millis);
    }

    private RunSettings settings() {
        return RunSettings.from(ConfigFactory.parseString("""
                bios.run { recovery-point { steps = %d, operations = %d }, window = %d, retry-after = 2 s
                  idle-after = 20 s, attempts = %d, max-unfinished = %d
                  results.max-count = %d }
                """.formatted(stage.between(1, 5), stage.between(3, 12), stage.between(1, 6),
                stage.between(2, 3), stage.oneIn(4) ? 4 : 100, stage.oneIn(8) ? 6 : 4096))
                .withFallback(system.settings().config()));
    }

    private void play(World world) {
        boolean alone = stage.oneIn(2);
        // An operation that kills takes other runs of its node with it, and must not have them blamed.
        boolean harm = stage.oneIn(2);
        boolean loads = stage.oneIn(2);
        var first = new RunId("usf-finance-9f2c4be01a01");
        var second = new RunId("usf-finance-9f2c4be01a02");
        var clients = new ArrayList<Client>();
        clients.add(new Client(world, first, loads ? Optional.of(second) : Optional.empty(),
                (int) stage.between(5, alone ? 40 : 25), harm, false));
        if (!alone) clients.add(new Client(world, second, Optional.empty(), (int) stage.between(5, 25), false,
                loads));
        world.begin();
        clients.forEach(Client::begin);
        stage.in(FAULTS_END, world::calm);
        until(world, () -> world.faults.calm && clients.stream().allMatch(Client::over), () ->
                "what was accepted is not finished: " + clients.stream().map(Client::waits).toList());
        clients.forEach(Client::lookAgain);
        until(world, () -> clients.stream().allMatch(Client::described), () -> "a run does not answer");
        until(world, () -> clients.stream().allMatch(c -> world.atRest(c.run())),
                () -> "a run does not rest");
        for (Client client : clients) atRest(world, client.run());
        world.turnsAreFree();
    }

    private void atRest(World world, RunId run) {
        world.ledger(run).settled();
        if (world.ledger(run).behindPoint() > 0)
            world.violated("run " + run + " rests with " + world.ledger(run).behindPoint()
                    + " operations behind its recovery point");
    }

    private interface Condition {
        boolean holds();
    }

    private interface Words {
        String say();
    }

    private void until(World world, Condition over, Words otherwise) {
        long deadline = stage.now() + PATIENCE;
        while (!over.holds()) {
            if (!stage.step() || stage.now() > deadline || stage.steps() > MAX_STEPS) {
                world.violated(otherwise.say());
            }
            if (world.violation().isPresent()) throw new Violation(world.violation().get());
        }
    }
}
