package bios;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// What can be a test is not a guideline: the rules of the tree, kept by reading it.
final class TidyTest {
    private static final Path ROOT = root();
    private static final List<String> MODULES = List.of("protocol", "persistence", "coordinator",
            "worker", "deploy");

    /// Packages that a module's main code must not import.
    private static final Map<String, List<String>> FORBIDDEN = Map.of(
            "protocol", List.of("bios.persistence", "bios.coordinator", "bios.worker"),
            "persistence", List.of("bios.coordinator", "bios.worker"),
            "coordinator", List.of("bios.worker"),
            "worker", List.of("bios.coordinator"),
            "deploy", List.of());

    /// Where time, chance and waiting come in from the world; everything else gets them as parameters.
    private static final Set<String> EDGES = Set.of(
            "deploy/src/main/java/bios", "deploy/src/main/java/bios/command",
            "deploy/src/main/java/bios/bench");

    private static final Pattern WORLD = Pattern.compile(
            "System\\.currentTimeMillis|System\\.nanoTime|Instant\\.now\\(\\)|LocalDate(Time)?\\.now"
            + "|Math\\.random|new Random\\(\\)|ThreadLocalRandom|UUID\\.randomUUID"
            + "|new SecureRandom|Thread\\.sleep");

    /// Files that are themselves an edge, each with the reason.
    private static final Map<String, String> EDGE_FILES = Map.of();

    @Test void importsFollowTheDirectionOfModules() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/java", ".java"))
                for (String line : Files.readAllLines(file))
                    for (String forbidden : FORBIDDEN.get(module))
                        if (line.matches("import (static )?" + forbidden + ".*"))
                            wrong.add(relative(file) + ": " + line);
        assertEquals(List.of(), wrong);
    }

    @Test void timeAndChanceComeInThroughParameters() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/java", ".java")) {
                if (EDGES.contains(relative(file.getParent())) || EDGE_FILES.containsKey(relative(file)))
                    continue;
                List<String> lines = Files.readAllLines(file);
                for (int i = 0; i < lines.size(); i++) {
                    String code = lines.get(i).strip();
                    if (!code.startsWith("//") && WORLD.matcher(code).find() && !code.contains("// edge:"))
                        wrong.add(relative(file) + ":" + (i + 1) + ": " + code);
                }
            }
        assertEquals(List.of(), wrong,
                "take a clock or a source of chance as a parameter, or say why with '// edge: ...'");
    }

    @Test void nothingIsLeftForLater() throws IOException {
        Pattern later = Pattern.compile(
                "\\b(TO" + "DO|FIX" + "ME|XX" + "X)\\b|@Disabled|assertTrue\\(true\\)");
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (String suffix : List.of(".java", ".py", ".cu", ".sh"))
                for (Path file : files(module, suffix)) {
                    if (relative(file).contains("/target/")) continue;
                    Matcher found = later.matcher(Files.readString(file));
                    if (found.find()) wrong.add(relative(file) + ": " + found.group());
                }
        wrong.removeIf(w -> w.startsWith("deploy/src/test/java/bios/TidyTest.java"));
        assertEquals(List.of(), wrong);
    }

    @Test void everyCudaKernelHasItsTwinAndItsTest() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (Path file : files("worker/src/main", ".cu")) {
            String name = file.getFileName().toString().replace(".cu", "");
            if (!Files.exists(file.resolveSibling(name + ".java")))
                wrong.add(relative(file) + " has no " + name + ".java");
            if (files("worker/src/test", name + "ParityTest.java").isEmpty())
                wrong.add(relative(file) + " has no test");
        }
        assertEquals(List.of(), wrong);
    }

    @Test void everySettingIsInTheReference() throws IOException {
        String reference = Files.readString(ROOT.resolve("docs/reference/settings.md"));
        List<String> missing = new ArrayList<>();
        for (String module : List.of("persistence", "coordinator", "worker", "deploy")) {
            Path file = ROOT.resolve(module + "/src/main/resources/reference.conf");
            if (!Files.exists(file)) continue;
            var config = ConfigFactory.parseFile(file.toFile());
            if (!config.hasPath("bios")) continue;
            for (var entry : config.getConfig("bios").entrySet())
                if (!reference.contains("`bios." + entry.getKey() + "`"))
                    missing.add("bios." + entry.getKey());
        }
        assertEquals(List.of(), missing);
    }

    @Test void everyMetricIsInTheReference() throws IOException {
        String reference = Files.readString(ROOT.resolve("docs/reference/metrics.md"));
        Pattern name = Pattern.compile("\\.name\\(\"(bios_\\w+)\"\\)");
        List<String> found = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/java", "Metrics.java")) {
                Matcher metric = name.matcher(Files.readString(file));
                while (metric.find()) found.add(metric.group(1));
            }
        assertEquals(List.of(), found.stream().filter(m -> !reference.contains("`" + m + "`")).toList());
        assertEquals(false, found.isEmpty());
    }

    @Test void linesFitTheirWidth() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src", ".java")) {
                List<String> lines = Files.readAllLines(file);
                for (int i = 0; i < lines.size(); i++) if (lines.get(i).length() > 110)
                    wrong.add(relative(file) + ":" + (i + 1) + " " + lines.get(i).length());
            }
        assertEquals(List.of(), wrong);
    }

    @Test void everyPublicTypeSaysWhatItIs() throws IOException {
        Pattern type = Pattern.compile("^public .*\\b(class|interface|record|enum) \\w+");
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/java", ".java")) {
                List<String> lines = Files.readAllLines(file);
                for (int i = 1; i < lines.size(); i++) {
                    if (!type.matcher(lines.get(i)).find()) continue;
                    int above = i - 1;
                    // annotations, which may go over several lines
                    while (above > 0 && lines.get(above).matches("@.*| +.*")) above--;
                    if (!lines.get(above).startsWith("///")) wrong.add(relative(file) + ": " + lines.get(i));
                }
            }
        assertEquals(List.of(), wrong);
    }

    @Test void linksInTheDocsLeadSomewhere() throws IOException {
        Pattern link = Pattern.compile("\\]\\(([^)#\\s]+)(#[^)]*)?\\)");
        List<String> wrong = new ArrayList<>();
        List<Path> pages = new ArrayList<>(files("docs", ".md"));
        pages.add(ROOT.resolve("README.md"));
        for (Path page : pages) {
            Matcher found = link.matcher(Files.readString(page));
            while (found.find()) {
                String target = found.group(1);
                if (target.contains("://") || target.startsWith("mailto:")) continue;
                if (!Files.exists(page.getParent().resolve(target)))
                    wrong.add(relative(page) + ": " + target);
            }
        }
        assertEquals(List.of(), wrong);
    }

    private static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }

    private static String relative(Path file) {
        return ROOT.relativize(file).toString();
    }

    private static List<Path> files(String folder, String suffix) throws IOException {
        Path start = ROOT.resolve(folder);
        if (!Files.isDirectory(start)) return List.of();
        try (Stream<Path> all = Files.walk(start)) {
            return all.filter(f -> f.toString().endsWith(suffix) && Files.isRegularFile(f)).sorted().toList();
        }
    }
}
