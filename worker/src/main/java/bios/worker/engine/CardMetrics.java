package bios.worker.engine;

import bios.worker.device.CardState;
import bios.worker.device.Device;
import io.prometheus.metrics.core.metrics.GaugeWithCallback;
import java.util.function.ToDoubleFunction;

/// Metrics of the card that the engine computes on, read when they are scraped; none on other devices.
/// `docs/reference/metrics.md` says what each means.
final class CardMetrics {
    private static volatile Device device;

    static {
        register(GaugeWithCallback.builder().name("bios_engine_card_memory_used_bytes")
                .help("Memory of the card that all processes use."), CardState::memoryUsed);
        register(GaugeWithCallback.builder().name("bios_engine_card_utilization_ratio")
                .help("Share of the last moments in which the card computed."), CardState::utilization);
        register(GaugeWithCallback.builder().name("bios_engine_card_clock_hertz")
                .help("Clock of the card's multiprocessors."), CardState::clock);
        register(GaugeWithCallback.builder().name("bios_engine_card_temperature_celsius")
                .help("Temperature of the card."), CardState::temperature);
        register(GaugeWithCallback.builder().name("bios_engine_card_power_watts")
                .help("Power that the card takes."), CardState::power);
    }

    private CardMetrics() {}

    /// The device of this process's engine.
    static void watch(Device engines) {
        device = engines;
    }

    private static void register(GaugeWithCallback.Builder gauge, ToDoubleFunction<CardState> value) {
        gauge.labelNames("card").callback(to -> {
            Device own = device;
            if (own == null) return;
            own.card().filter(card -> !Double.isNaN(value.applyAsDouble(card)))
                    .ifPresent(card -> to.call(value.applyAsDouble(card), card.uuid()));
        }).register();
    }
}
