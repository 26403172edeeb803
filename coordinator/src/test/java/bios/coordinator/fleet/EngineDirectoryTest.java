package bios.coordinator.fleet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import com.typesafe.config.ConfigFactory;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// The known models and engines: the snapshot, and the actor that publishes it.
class EngineDirectoryTest {
    private static final ActorTestKit KIT = ActorTestKit.create("fleet-test",
            ConfigFactory.parseString("pekko.actor.provider = local, pekko.loglevel = WARNING")
            .withFallback(ConfigFactory.load()));
    private static final ActorRef<EngineCommand> A = KIT.createTestProbe(EngineCommand.class).getRef();
    private static final ActorRef<EngineCommand> B = KIT.createTestProbe(EngineCommand.class).getRef();

    @AfterAll static void stop() {
        KIT.shutdownTestKit();
    }

    private static ModelInfo model(String name, int vocabulary) {
        return new ModelInfo(new ModelName(name), "LlamaForCausalLM", 64, vocabulary, 16, 2,
                "bfloat16", 5);
    }

    private static EngineReply.Description described(int queued, ModelInfo... models) {
        return new EngineReply.Description(List.of(models), queued, 0, List.of());
    }

    @Test void aModelStaysKnownAfterTheLossOfItsLastEngine() {
        EngineDirectory directory = EngineDirectory.EMPTY.withEngine(A, described(3, model("x/one", 10)))
                .withEngine(B, described(0, model("x/one", 10), model("two", 10)));
        assertEquals(2, directory.enginesOf(new ModelName("x/one")).size());
        EngineDirectory less = directory.withOnlyEngines(List.of(A));
        assertEquals(List.of(model("x/one", 10)), less.servedModels());
        assertEquals(Optional.of(model("two", 10)), less.modelOfSlug("two"));
        assertEquals(Optional.empty(), less.model(new ModelName("y/one")));
        assertEquals(List.of(), less.withOnlyEngines(List.of()).servedModels());
    }

    @Test void twoModelsOfOneSlugAreNotMixedUp() {
        EngineDirectory directory = EngineDirectory.EMPTY.withEngine(A, described(0, model("x/one", 10)))
                .withEngine(B, described(0, model("y/one", 20)));
        assertEquals(List.of(model("x/one", 10)), directory.servedModels());
        assertEquals(1, directory.conflictMessages().size());
        EngineDirectory other = EngineDirectory.EMPTY.withEngine(A, described(0, model("x/one", 10)))
                .withEngine(B, described(0, model("x/one", 20)));
        assertEquals(1, other.enginesOf(new ModelName("x/one")).size());
        EngineDirectory replaced = other.withOnlyEngines(List.of(B))
                .withEngine(B, described(0, model("x/one", 20)));
        assertEquals(List.of(model("x/one", 20)), replaced.servedModels());
        assertTrue(replaced.conflictMessages().isEmpty());
    }
}
