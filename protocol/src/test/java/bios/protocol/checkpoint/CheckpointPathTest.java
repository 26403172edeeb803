package bios.protocol.checkpoint;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Invalid;
import bios.protocol.model.ModelName;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.Optional;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.Combinators;
import net.jqwik.api.Example;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;

class CheckpointPathTest {
    @Property(tries = 300) void aPathIsReadAsItIsPrinted(@ForAll("paths") CheckpointPath path) {
        CheckpointPath read = CheckpointPath.parse(path.biosUri());
        assertEquals(path.run(), read.run());
        assertEquals(path.name(), read.name());
        assertEquals(path.kind().filter(k -> k == CheckpointKind.SAMPLER), read.kind());
        CheckpointPath tinker = CheckpointPath.parse(path.tinkerUri());
        assertEquals(path.kind().orElse(CheckpointKind.TRAINING), tinker.kind().orElseThrow());
        assertEquals(path.name(), tinker.name());
    }

    @Property(tries = 500) void anyOtherTextIsRefusedAsAPath(@ForAll String text) {
        assertEquals("path",
                assertThrows(Invalid.class, () -> CheckpointPath.parse("bios://" + text)).field());
        assertEquals("path", assertThrows(Invalid.class, () -> CheckpointPath.parse(text)).field());
    }

    @Example void malformedPathsAreRefusedWithTheExpectedForm() {
        String run = "usf-finance-9f2c4be01a77";
        for (String bad : List.of("bios://" + run, "bios://" + run + "/", "bios://" + run + "//a", "bios://"
                + run + "/other/a", "bios://" + run + "/weights", "bios://" + run + "/sampler_weights",
                "bios://" + run + "/weights/a/b", "bios://" + run + "/../a", "bios://nohex/a",
                "http://" + run + "/a", "BIOS://" + run + "/a", " bios://" + run + "/a")) {
            assertEquals("path", assertThrows(Invalid.class, () -> CheckpointPath.parse(bad), bad).field());
        }
        assertThrows(Invalid.class, () -> CheckpointPath.parse(null));
    }

    @Property(tries = 200) void requestIdsAreReadAsPrinted(@ForAll("runs") RunId run, @ForAll long seq) {
        assertEquals(new RequestId(run, seq), RequestId.parse(new RequestId(run, seq).toString()));
    }

    @Property(tries = 200) void theSlugOfARunIsThatOfItsModel(@ForAll("runs") RunId run) {
        assertTrue(run.value().startsWith(run.slug() + "-"));
        assertEquals(run.slug(), new ModelName("any/" + run.slug()).slug());
    }

    @Provide Arbitrary<RunId> runs() {
        Arbitrary<String> slugs = Arbitraries.strings().withCharRange('a', 'z').numeric().ofMinLength(1)
                .ofMaxLength(12).list().ofMinSize(1).ofMaxSize(3).map(words -> String.join("-", words));
        Arbitrary<String> digits = Arbitraries.strings().withChars("0123456789abcdef").ofMinLength(12)
                .ofMaxLength(20);
        return Combinators.combine(slugs, digits).as((slug, hex) -> new RunId(slug + "-" + hex));
    }

    @Provide Arbitrary<CheckpointPath> paths() {
        Arbitrary<CheckpointName> names = Arbitraries.strings().withCharRange('a', 'z')
                .numeric().withChars("._-")
                .ofMinLength(1).ofMaxLength(40).filter(n -> Character.isLetterOrDigit(n.charAt(0)))
                .filter(n -> !n.equals("weights")).map(CheckpointName::new);
        Arbitrary<Optional<CheckpointKind>> kinds = Arbitraries.of(CheckpointKind.values()).optional();
        return Combinators.combine(runs(), kinds, names).as(CheckpointPath::new);
    }
}
