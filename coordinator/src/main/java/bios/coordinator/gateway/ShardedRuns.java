package bios.coordinator.gateway;

import bios.coordinator.run.RunSettings;
import bios.coordinator.run.TrainingRunSharding;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.typed.Cluster;

/// Runs behind cluster sharding. The gateway asks only for runs of base models that some worker has served,
/// so that the proxies begun here are few.
public final class ShardedRuns implements RunDirectory {
    private final ActorSystem<?> system;
    private final RunSettings settings;
    private final Set<String> begun = ConcurrentHashMap.newKeySet();

    /// @param settings as the workers have them: the number of shards must be the same everywhere
    public ShardedRuns(ActorSystem<?> system, RunSettings settings) {
        this.system = system;
        this.settings = settings;
    }

    @Override public CompletionStage<RunReply> ask(RunId run,
            Function<ActorRef<RunReply>, RunCommand> message, Duration timeout) {
        begin(run.slug());
        return TrainingRunSharding.ref(system, run).ask(message::apply, timeout);
    }

    /// Where this node serves the model itself, the program has begun its sharding.
    private void begin(String slug) {
        if (begun.contains(slug)) return;
        if (!Cluster.get(system).selfMember().hasRole(TrainingRunSharding.role(slug)))
            TrainingRunSharding.initProxy(system, slug, settings);
        begun.add(slug);
    }
}
