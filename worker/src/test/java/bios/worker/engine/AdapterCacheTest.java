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

    private final AdapterCache cache = new AdapterCache(100);

    @AfterAll static void close() {
        DEVICE.close();
    }

    @Test void theLeastRecentlyUsedAdapterIsEvicted() {
        Adapter a = load("a", 40);
        Adapter b = load("b", 40);
        cache.release(key("a"));
        cache.release(key("b"));
        assertSame(a, assertInstanceOf(Answer.Hit.class, cache.request(key("a"), 40)).adapter());
        cache.release(key("a"));
        assertEquals(new Answer.Load(List.of(b)), cache.request(key("c"), 50));
        assertInstanceOf(Answer.Hit.class, cache.request(key("a"), 40));
    }

    @Test void anAdapterInUseIsNotEvicted() {
        load("a", 60);
        assertEquals(new Answer.Full(), cache.request(key("b"), 50));
        cache.release(key("a"));
        assertInstanceOf(Answer.Load.class, cache.request(key("b"), 50));
        assertEquals(new Answer.Full(), cache.request(key("a"), 60));
        assertEquals(new Answer.TooLarge(100), cache.request(key("c"), 101));
    }

    @Test void aRequestForAnAdapterThatIsBeingLoadedSharesIt() {
        assertEquals(new Answer.Load(List.of()), cache.request(key("a"), 60));
        assertEquals(new Answer.Loading(), cache.request(key("a"), 60));
        cache.loaded(key("a"), adapter());
        cache.release(key("a"));
        assertEquals(new Answer.Full(), cache.request(key("b"), 60));
        cache.release(key("a"));
        assertInstanceOf(Answer.Load.class, cache.request(key("b"), 60));
    }

    @Test void aFailedLoadLeavesNoEntry() {
        cache.request(key("a"), 100);
        cache.loadFailed(key("a"));
        assertEquals(new Answer.Load(List.of()), cache.request(key("b"), 100));
    }

    @Test void whatNothingHasUsedSinceTheLastTimeIsGivenBack() {
        Adapter idle = load("idle", 40);
        load("used", 60);
        cache.release(key("idle"));
        assertEquals(List.of(), cache.removeUnused());
        assertEquals(List.of(idle), cache.removeUnused());
        assertEquals(60, cache.bytes());
        assertEquals(List.of(), cache.removeUnused());
        assertEquals(new Answer.Load(List.of()), cache.request(key("idle"), 40));
    }

    @Test void theSameBytesWithAnotherScaleAreAnotherAdapter() {
        load("a", 10);
        var other = new AdapterCache.Key(new ModelName("m"), "a",
                new LoraSpec(2, 64, 0, List.of(TargetModule.Q)));
        assertInstanceOf(Answer.Load.class, cache.request(other, 10));
    }

    private Adapter load(String content, long bytes) {
        Adapter adapter = adapter();
        assertInstanceOf(Answer.Load.class, cache.request(key(content), bytes));
        cache.loaded(key(content), adapter);
        return adapter;
    }

    private static Adapter adapter() {
        return Adapter.createInitialized(key("x").lora(), MODEL, DEVICE);
    }

    private static AdapterCache.Key key(String content) {
        return new AdapterCache.Key(new ModelName("m"), content,
                new LoraSpec(2, 4, 0, List.of(TargetModule.Q)));
    }
}
