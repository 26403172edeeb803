package bios.bench;

import bios.CommandFailed;
import bios.worker.device.CudaReport;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;

/// Checks and measures the device of this machine: parity of every verb and of whole models with the CPU,
/// bits that do not depend on company, the limits of the hardware and the share of them that training and
/// sampling reach. Goes on after a failure, and leaves out what no longer fits into its time.
///
/// @param sizes the models and batches that are measured
/// @param limit time limit of the whole; checked before each part
/// @param peer a Python with torch, transformers and peft that runs the same step; empty: none
/// @param only names of the parts to run; empty: all
/// @param folder where models of random weights are written
/// @param out receives the table
/// @param done receives the results so far after each part
public record GpuCheck(Sizes sizes, Duration limit, Optional<Peer> peer, List<String> only, Path folder,
        PrintStream out, Consumer<ObjectNode> done) {
    /// The names of all parts, in their order.
    public static final List<String> PARTS = List.of("verbs", "models", "bits", "ceilings", "train",
            "tenants", "profile", "mixed", "decode", "decode-profile", "variants");

    /// Checks that all names are those of parts.
    ///
    /// @throws CommandFailed with the name that is none
    public GpuCheck {
        for (String name : only)
            if (!PARTS.contains(name)) throw new CommandFailed("--only " + name + ": the parts are "
                    + String.join(", ", PARTS));
    }

    /// Models and batches.
    ///
    /// @param train shape of the model that is trained
    /// @param sequences of a step
    /// @param length tokens of each
    /// @param decode shape of the model that is sampled and trained on packed sequences
    /// @param packed tokens of a step of packed sequences
    /// @param streams sequences that are sampled at once
    /// @param tokens sampled tokens of each
    /// @param matmul rows, columns and depth of the product that measures the ceiling
    /// @param copyBytes bytes of the copy that measures the ceiling
    /// @param rows of the product whose rows are compared with those of smaller ones
    /// @param columns of that product
    public record Sizes(Shape train, int sequences, int length, Shape decode, int packed, int streams,
            int tokens, int matmul, long copyBytes, int rows, int columns) {
        /// What the goals are stated for. The product is computed in two pieces.
        public static final Sizes FULL = new Sizes(Shape.LLAMA_8B, 4, 4096, Shape.QWEN_8B, 16384, 64, 64,
                8192, 4L << 30, 5000, 14336);
        /// A few seconds on any device.
        public static final Sizes TINY = new Sizes(Shape.tiny("LlamaForCausalLM"), 2, 48,
                Shape.tiny("Qwen3ForCausalLM"), 96, 3, 4, 64, 1 << 20, 150, 208);
    }

    private interface Part {
        void run(ObjectNode line) throws Exception;
    }

    /// Runs all parts; returns the results, in which `failed` names the parts that failed.
    public ObjectNode run() throws IOException {
        ObjectNode result = Report.JSON.createObjectNode();
        result.putArray("failed");
        result.putArray("left_out");
        long begin = System.nanoTime();
        DeviceSettings settings = DeviceSettings.of(ConfigFactory.load(),
                Runtime.getRuntime().availableProcessors());
        try (GpuGoals goals = new GpuGoals(sizes, settings, folder, peer)) {
            describe(settings, result);
            Map<String, Part> parts = parts(settings, goals);
            for (String name : PARTS) {
                part(name, begin, result, parts.get(name));
                done.accept(result);
            }
        } catch (DeviceLost lost) {
            out.println("✗ the device is lost: " + lost.getMessage());
            result.withArray("failed").add("device");
        }
        result.put("seconds", Report.round((System.nanoTime() - begin) * 1e-9));
        done.accept(result);
        return result;
    }

    private Map<String, Part> parts(DeviceSettings settings, GpuGoals goals) {
        GpuParity parity = new GpuParity(settings, folder);
        Map<String, Part> parts = new LinkedHashMap<>();
        parts.put("verbs", line -> parity.verbs(line, out));
        parts.put("models", line -> parity.models(line, out));
        parts.put("bits", line -> parity.bits(line, sizes));
        parts.put("ceilings", goals::ceilings);
        parts.put("train", goals::train);
        parts.put("tenants", goals::tenants);
        parts.put("profile", goals::profile);
        parts.put("mixed", goals::mixed);
        parts.put("decode", goals::decode);
        parts.put("decode-profile", goals::decodeProfile);
        parts.put("variants", new GpuVariants(sizes, settings, folder)::run);
        return parts;
    }

    private void describe(DeviceSettings settings, ObjectNode result) {
        try (Device device = Devices.open(settings)) {
            result.put("device", device.description()).put("java", Runtime.version().toString())
                    .put("memory_gib", Report.round(device.memoryLimit() / (double) (1L << 30)));
            out.println(device.description());
        }
        CudaReport report = Devices.cudaReport(settings.cuda());
        report.cards().forEach(result.putArray("cards")::add);
        report.libraries().forEach(result.putArray("libraries")::add);
        result.put("cores", Runtime.getRuntime().availableProcessors()).put("os",
                System.getProperty("os.name") + " " + System.getProperty("os.version"));
    }

    private void part(String name, long begin, ObjectNode result, Part part) {
        if (!only.isEmpty() && !only.contains(name)) return;
        if (System.nanoTime() - begin > limit.toNanos()) {
            out.println("- " + name + ": left out, the time is over");
            result.withArray("left_out").add(name);
            return;
        }
        long from = System.nanoTime();
        ObjectNode line = result.putObject(name);
        try {
            part.run(line);
        } catch (DeviceLost lost) {
            failed(name, lost, line, result);
            throw lost;
        } catch (Throwable failure) {   // the other parts are still worth knowing
            failed(name, failure, line, result);
        }
        line.put("seconds", Report.round((System.nanoTime() - from) * 1e-9));
        print(name, line);
        if (!line.path("failures").isEmpty()) result.withArray("failed").add(name);
    }

    private void print(String name, ObjectNode line) {
        out.printf("%n%s%n", name);
        line.properties().forEach(field -> {
            switch (field.getKey()) {
                case "profile" -> out.println(ProfileTable.text((ArrayNode) field.getValue()));
                case "goals" -> field.getValue().forEach(this::printGoal);
                case "variants" -> field.getValue().forEach(variant -> out.println("  " + variant));
                default -> out.printf("  %-28s %s%n", field.getKey(), field.getValue());
            }
        });
    }

    private void printGoal(JsonNode goal) {
        boolean known = !goal.has("not_measured");
        out.printf(Locale.ROOT, "  %s %-56s %10s  goal %s%s%n", !known ? "-"
                : goal.path("reached").asBoolean() ? "✓" : "✗", goal.path("what").asText(),
                known ? goal.path("value").asText() : "", goal.path("goal").asText(),
                known ? "" : ", not measured: " + goal.path("not_measured").asText());
    }

    private void failed(String name, Throwable failure, ObjectNode line, ObjectNode result) {
        line.put("failure", failure.toString());
        result.withArray("failed").add(name);
        out.println("✗ " + name + ": " + failure);
        failure.printStackTrace(out);
    }

    /// The types of activations that are compared.
    static List<DType> types() {
        return List.of(DType.F32, DType.BF16);
    }
}
