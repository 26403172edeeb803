package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.TestDevices;
import bios.worker.engine.AdapterCache.Answer;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelSpec;
import bios.worker.model.Golden;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

class AdapterCacheTest {
    private static final Device DEVICE = TestDevices.open(1);
    private static final ModelSpec MODEL = ModelFolder.open(Golden.of("qwen3").folder().resolve("model"))
            .spec();

    private final AdapterCache shelf = new AdapterCache(100);

    @AfterAll static void close() {
        DEVICE.close();
    }

    @Test void theLeastRecentlyUsedAdapterMakesRoom() {
        Adapter a = bring("a", 40);
        Adapter b = bring("b", 40);
        shelf.release(key("a"));
        shelf.release(key("b"));
        assertSame(a, assertInstanceOf(Answer.Here.class, shelf.want(key("a"), 40)).adapter());
        shelf.release(key("a"));
        assertEquals(new Answer.Fetch(List.of(b)), shelf.want(key("c"), 50));
        assertInstanceOf(Answer.Here.class, shelf.want(key("a"), 40));
    }

    @Test void whatIsInUseStays() {
        bring("a", 60);
        assertEquals(new Answer.Full(), shelf.want(key("b"), 50));
        shelf.release(key("a"));
        assertInstanceOf(Answer.Fetch.class, shelf.want(key("b"), 50));
        assertEquals(new Answer.Full(), shelf.want(key("a"), 60));
        assertEquals(new Answer.TooLarge(100), shelf.want(key("c"), 101));
    }

    @Test void whoAsksWhileItIsFetchedUsesItToo() {
        assertEquals(new Answer.Fetch(List.of()), shelf.want(key("a"), 60));
        assertEquals(new Answer.Coming(), shelf.want(key("a"), 60));
        shelf.arrived(key("a"), adapter());
        shelf.release(key("a"));
        assertEquals(new Answer.Full(), shelf.want(key("b"), 60));
        shelf.release(key("a"));
        assertInstanceOf(Answer.Fetch.class, shelf.want(key("b"), 60));
    }

    @Test void aFetchThatFailedLeavesNothing() {
        shelf.want(key("a"), 100);
        shelf.lost(key("a"));
        assertEquals(new Answer.Fetch(List.of()), shelf.want(key("b"), 100));
    }

    @Test void theSameBytesWithAnotherScaleAreAnotherAdapter() {
        bring("a", 10);
        var other = new AdapterCache.Key(new ModelName("m"), "a",
                new LoraSpec(2, 64, 0, List.of(TargetModule.Q)));
        assertInstanceOf(Answer.Fetch.class, shelf.want(other, 10));
    }

    private Adapter bring(String content, long bytes) {
        Adapter adapter = adapter();
        assertInstanceOf(Answer.Fetch.class, shelf.want(key(content), bytes));
        shelf.arrived(key(content), adapter);
        return adapter;
    }

    private static Adapter adapter() {
        return Adapter.fresh(key("x").lora(), MODEL, DEVICE);
    }

    private static AdapterCache.Key key(String content) {
        return new AdapterCache.Key(new ModelName("m"), content,
                new LoraSpec(2, 4, 0, List.of(TargetModule.Q)));
    }
}
