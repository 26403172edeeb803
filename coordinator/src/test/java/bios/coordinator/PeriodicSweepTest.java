package bios.coordinator;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.ManualTime;
import org.junit.jupiter.api.Test;

class PeriodicSweepTest {
    @Test void aSweepIsRepeatedAtItsIntervalAlsoAfterAFailure() {
        var kit = ActorTestKit.create("sweep", ManualTime.config().withFallback(ConfigFactory.load()));
        try {
            var time = ManualTime.get(kit.system());
            var swept = kit.<Integer>createTestProbe();
            var number = new AtomicInteger();
            PeriodicSweep.start(kit.system(), Duration.ofHours(1), Duration.ofDays(1), "leftovers", () -> {
                swept.getRef().tell(number.incrementAndGet());
                throw new IllegalStateException("the store is away");
            });
            time.timePasses(Duration.ofMinutes(59));
            assertEquals(0, number.get());
            time.timePasses(Duration.ofMinutes(1));
            for (int day = 1; day <= 3; day++) {
                assertEquals(day, swept.receiveMessage());
                time.timePasses(Duration.ofDays(1));
            }
        } finally {
            kit.shutdownTestKit();
        }
    }
}
