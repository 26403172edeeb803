package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.worker.engine.TurnOrder.Kind;
import bios.worker.device.TestDevices;
import com.typesafe.config.ConfigFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class TurnOrderTest {
    @Test void busyKindsAlternate() {
        var order = new TurnOrder();
        List<Kind> taken = new ArrayList<>();
        for (int i = 0; i < 4; i++) taken.add(order.next(kind -> kind != Kind.TASKS).orElseThrow());
        assertEquals(List.of(Kind.SAMPLE, Kind.PASS, Kind.SAMPLE, Kind.PASS), taken);
        for (int i = 0; i < 3; i++)
            assertEquals(Optional.of(Kind.SAMPLE), order.next(kind -> kind == Kind.SAMPLE));
        assertEquals(Optional.empty(), order.next(_ -> false));
        assertEquals(Optional.of(Kind.TASKS), order.next(_ -> true));
    }

    @Test void theDefaultsAreValid() {
        EngineSettings settings = EngineSettings.of(ConfigFactory.load());
        assertEquals(8192, settings.trainPassTokens());
        try (var device = TestDevices.open(1)) {
            assertEquals(1L << 30, settings.sampler().forDevice(device).cacheBytes());
            assertEquals(640L << 20, settings.activationBytes(device));
            assertEquals(2560L << 20, settings.longSequenceBytes(device));
        }
    }
}
