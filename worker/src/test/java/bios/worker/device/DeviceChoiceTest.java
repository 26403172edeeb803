package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// `bios.engine.device`: what is refused when a worker starts, and what `auto` takes.
final class DeviceChoiceTest {
    private static DeviceSettings settings(String device) {
        return DeviceSettings.of(ConfigFactory.parseMap(Map.of("bios.engine.device", device))
                .withFallback(ConfigFactory.load()), 1);
    }

    @Test void aDeviceThatIsNoneIsRefusedWithTheOnesThatAre() {
        for (String device : new String[] {"gpu", "cudax", "CPU", ""}) {
            var refused = assertThrows(ConfigException.BadValue.class, () -> settings(device));
            assertTrue(refused.getMessage().contains("none of auto, cpu, cuda"), refused.getMessage());
        }
    }

    @Test void aCardThatTheMachineDoesNotHaveKeepsTheWorkerFromStarting() {
        for (String device : new String[] {"cuda:99", "cuda:GPU-00000000-0000-0000-0000-000000000000"}) {
            var refused = assertThrows(ConfigException.BadValue.class, () -> settings(device));
            assertTrue(refused.getMessage().contains("no such card")
                    || refused.getMessage().contains("no NVIDIA driver")
                    || refused.getMessage().contains("lists no card"), refused.getMessage());
        }
    }

    @Test void withoutACardAutoIsTheCpu() {
        assumeTrue(Devices.cards().isEmpty(), "this machine has a card");
        assertEquals(DeviceSettings.AUTO, settings("auto").device());
        try (Device on = Devices.open(settings("auto").withPath(TestDevices.path()))) {
            assertTrue(on.description().startsWith("CPU"), on.description());
            assertEquals(DType.F32, on.activationType());
        }
    }

    @Test void memoryOfTheHostDoesNotLimitACard() {
        var own = settings("cpu");
        assertEquals(Long.MAX_VALUE, own.cuda().memoryBytes());
        assertEquals(1 << 20, own.withMemory(1 << 20).cuda().memoryBytes());
    }
}
