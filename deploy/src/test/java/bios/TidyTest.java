package bios;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// Applies [TidyRules] to the source tree and the documents.
final class TidyTest {
    private static final Path ROOT = root();
    private static final List<String> MODULES = List.of("protocol", "persistence", "coordinator",
            "worker", "deploy");

    /// Folders of programs that people run: their code is an edge as a whole.
    private static final Set<String> EDGES = Set.of(
            "deploy/src/main/java/bios", "deploy/src/main/java/bios/command",
            "deploy/src/main/java/bios/bench");

    private static final String CPU_BACKEND = "worker/src/main/java/bios/worker/device/cpu/";
    /// The class that chooses a backend.
    private static final String DEVICE_FACTORY = "worker/src/main/java/bios/worker/device/Devices.java";
    /// Files outside the CPU backend that use memory of the host, each with the reason.
    private static final Map<String, String> HOST_MEMORY = Map.of(
            "worker/src/main/java/bios/worker/load/", "maps model files",
            "worker/src/main/java/bios/worker/device/cuda/", "copies between the host and a card",
            "worker/src/main/java/bios/worker/device/SmokeTest.java", "makes a frozen matrix",
            "worker/src/main/java/bios/worker/device/FrozenMatrix.java", "a matrix of a mapped model file",
            "worker/src/main/java/bios/worker/kernel/HalfFloats.java", "reads mapped model files",
            "worker/src/main/java/bios/worker/kernel/Exp.java", "copies the bits of a float array",
            "worker/src/main/java/bios/worker/engine/HostStateCache.java",
            "keeps recovery points off the heap");

    private interface Rule {
        List<String> of(String text);
    }

    @Test void importsFollowTheDirectionOfModules() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/java", ".java"))
                TidyRules.imports(module, Files.readString(file))
                        .forEach(found -> wrong.add(relative(file) + ": " + found));
        assertEquals(List.of(), wrong);
    }

    @Test void timeAndRandomnessAreParameters() throws IOException {
        assertEquals(List.of(), awayFromEdges(TidyRules::clockOrRandom),
                "take a clock or a source of randomness as a parameter, or say why with '// edge: ...'");
    }

    @Test void nothingBlocksAwayFromEdges() throws IOException {
        assertEquals(List.of(), awayFromEdges(TidyRules::blocking),
                "use pipeToSelf or thenCompose, or say with '// edge: ...' why this thread may block");
    }

    private static List<String> awayFromEdges(Rule rule) throws IOException {
        List<String> wrong = new ArrayList<>();
        for (Path file : sources("main", ".java"))
            if (!EDGES.contains(relative(file.getParent())))
                rule.of(Files.readString(file)).forEach(found -> wrong.add(relative(file) + ":" + found));
        return wrong;
    }

    @Test void nothingIsLeftForLater() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (String module : MODULES)
            for (String suffix : List.of(".java", ".py", ".cu", ".sh"))
                for (Path file : files(module, suffix))
                    TidyRules.leftForLater(Files.readString(file))
                            .forEach(found -> wrong.add(relative(file) + ": " + found));
        assertEquals(List.of(), wrong);
    }

    @Test void everyCudaKernelIsLaunchedByAClassOfItsBackend() throws IOException {
        var launching = new StringBuilder();
        for (Path file : files("worker/src/main/java/bios/worker/device/cuda", ".java"))
            launching.append(Files.readString(file));
        List<String> wrong = new ArrayList<>();
        for (Path file : files("worker/src/main", ".cu"))
            TidyRules.kernels(Files.readString(file), launching.toString())
                    .forEach(name -> wrong.add(relative(file) + ": " + name));
        assertEquals(List.of(), wrong);
    }

    @Test void everySettingIsInTheReferenceAndTheOtherWayRound() throws IOException {
        var known = new TreeSet<String>();
        for (String module : MODULES)
            for (Path file : files(module + "/src/main/resources", ".conf")) {
                var config = ConfigFactory.parseFile(file.toFile());
                if (config.hasPath("bios"))
                    for (var entry : config.getConfig("bios").entrySet()) known.add("bios." + entry.getKey());
            }
        Set<String> documented = words("settings.md", "bios\\.[a-z0-9.-]+");
        // Set by the launcher, not by a file.
        documented.remove("bios.data");
        known.remove("bios.data");
        documented.removeIf(section -> known.stream().anyMatch(name -> name.startsWith(section + ".")));
        assertSame(known, documented);
    }

    @Test void everyMetricIsInTheReferenceAndTheOtherWayRound() throws IOException {
        assertSame(inAllSources(TidyRules::metrics), words("metrics.md", "bios_[a-z0-9_]+"));
    }

    @Test void everyErrorCodeIsInTheReferenceAndTheOtherWayRound() throws IOException {
        Map<String, String> constants = new TreeMap<>();
        for (Path file : sources("main", ".java"))
            constants.putAll(TidyRules.constants(Files.readString(file)));
        Set<String> raised = inAllSources(text -> TidyRules.errorCodes(text, constants));
        raised.addAll(gatewayCodes());
        assertSame(raised, documentedCodes());
    }

    private static void assertSame(Set<String> inTheCode, Set<String> documented) {
        assertFalse(inTheCode.isEmpty());
        Set<String> missing = new TreeSet<>(inTheCode);
        missing.removeAll(documented);
        Set<String> stale = new TreeSet<>(documented);
        stale.removeAll(inTheCode);
        assertEquals(Set.of(), missing, "not documented");
        assertEquals(Set.of(), stale, "documented, but not in the code");
    }

    /// The codes of the gateway's own refusals.
    private static Set<String> gatewayCodes() throws IOException {
        var codes = new TreeSet<>(List.of("malformed_http"));
        Matcher constant = Pattern.compile("\\b([A-Z_]+)\\([45][0-9][0-9]\\)").matcher(Files.readString(
                ROOT.resolve("coordinator/src/main/java/bios/coordinator/gateway/ErrorCode.java")));
        while (constant.find()) codes.add(constant.group(1).toLowerCase(Locale.ROOT));
        return codes;
    }

    /// The codes of errors.md, each in one row with a meaning and a remedy.
    private static Set<String> documentedCodes() throws IOException {
        var codes = new TreeSet<String>();
        Pattern row = Pattern.compile("\\| `([a-z_]+)` \\|.*\\|.*[a-z].*\\|.*[a-z].*\\|");
        for (String line : Files.readAllLines(ROOT.resolve("docs/reference/errors.md"))) {
            Matcher found = row.matcher(line);
            if (found.matches() && !codes.add(found.group(1))) codes.add(found.group(1) + " is listed twice");
        }
        return codes;
    }

    private static Set<String> words(String page, String pattern) throws IOException {
        return TidyRules.codeWords(Files.readString(ROOT.resolve("docs/reference/" + page))).stream()
                .filter(word -> word.matches(pattern)).collect(Collectors.toCollection(TreeSet::new));
    }

    private static Set<String> inAllSources(Function<String, Set<String>> rule) throws IOException {
        var all = new TreeSet<String>();
        for (Path file : sources("main", ".java")) all.addAll(rule.apply(Files.readString(file)));
        return all;
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
        for (Path file : sources("main", ".java")) {
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

    /// Class names in the settings of modules are read when a node starts.
    @Test void classesNamedInSettingsExist() throws IOException {
        var name = Pattern.compile("\"(bios(?:\\.[a-z]+)+\\.[A-Z]\\w*)");
        Set<String> found = new TreeSet<>();
        Set<String> missing = new TreeSet<>();
        for (String module : MODULES)
            for (Path settings : files(module + "/src/main/resources", ".conf"))
                name.matcher(Files.readString(settings)).results().map(result -> result.group(1))
                        .forEach(found::add);
        for (String type : found)
            if (MODULES.stream().noneMatch(module -> Files.exists(ROOT.resolve(
                    module + "/src/main/java/" + type.replace('.', '/') + ".java")))) missing.add(type);
        assertFalse(found.isEmpty());
        assertEquals(Set.of(), missing);
    }

    @Test void linksInTheDocsLeadSomewhere() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (Path page : pages())
            for (String link : TidyRules.links(Files.readString(page))) {
                String[] parts = link.split("#", 2);
                Path target = parts[0].isEmpty() ? page : page.getParent().resolve(parts[0]);
                boolean found = Files.exists(target) && (parts.length < 2
                        || TidyRules.anchors(Files.readString(target)).contains(parts[1]));
                if (!found)
                    wrong.add(relative(page) + ": " + link);
            }
        assertEquals(List.of(), wrong);
    }

    @Test void everyPageIsReachedFromTheReadme() throws IOException {
        Set<Path> reached = new TreeSet<>();
        var next = new ArrayDeque<>(List.of(ROOT.resolve("README.md")));
        while (!next.isEmpty()) {
            Path page = next.pop();
            if (!reached.add(page) || !page.toString().endsWith(".md")) continue;
            for (String link : TidyRules.links(Files.readString(page))) {
                Path target = page.resolveSibling(link.split("#", 2)[0]).normalize();
                if (Files.isRegularFile(target)) next.add(target);
            }
        }
        Set<String> missed = new TreeSet<>();
        for (Path page : files("docs", ".md")) if (!reached.contains(page)) missed.add(relative(page));
        assertEquals(Set.of(), missed);
    }

    @Test void theGlossaryHasAtMostThirtyTerms() throws IOException {
        long rows = Files.readAllLines(ROOT.resolve("docs/reference/glossary.md")).stream()
                .filter(line -> line.startsWith("| ")).count();
        assertTrue(rows > 1 && rows - 1 <= 30, () -> rows - 1 + " terms");
    }

    /// Each hop leads to the next: one of its files names a file of the next, or is named by one, except
    /// where the page says that the request goes over HTTP. Each file has such a link to another one of its
    /// hop or of the hops beside it. The page says how many hops and files there are.
    @Test void thePathOfOneForwardBackwardIsLinkedInTheCode() throws IOException {
        String design = Files.readString(ROOT.resolve("docs/design.md"));
        int begin = design.indexOf("### The path of one `forward_backward`");
        String path = design.substring(begin, design.indexOf("\n## ", begin));
        List<List<String>> hops = TidyRules.hops(path);
        Map<String, String> sources = new TreeMap<>();
        List<Path> all = new ArrayList<>(sources("main", ".java"));
        all.addAll(files("protocol/python/src/bios", ".py"));
        for (Path source : all)
            sources.merge(source.getFileName().toString(), Files.readString(source), String::concat);
        List<String> wrong = new ArrayList<>();
        for (int i = 0; i < hops.size(); i++) {
            List<String> near = hops.subList(Math.max(0, i - 1), Math.min(hops.size(), i + 2)).stream()
                    .flatMap(List::stream).toList();
            for (String file : hops.get(i))
                if (near.stream().noneMatch(other -> !other.equals(file)
                        && TidyRules.linked(file, other, sources)))
                    wrong.add(file + " of hop " + (i + 1));
            if (i == 0 || overHttp(path, i + 1)) continue;
            List<String> before = hops.get(i - 1);
            if (hops.get(i).stream().noneMatch(file ->
                    before.stream().anyMatch(other -> TidyRules.linked(file, other, sources))))
                wrong.add("from hop " + i + " to the next");
        }
        assertEquals(List.of(), wrong);
        long files = hops.stream().flatMap(List::stream).distinct().count();
        assertTrue(path.contains(hops.size() + " hops in " + files + " files"),
                () -> hops.size() + " hops in " + files + " files");
    }

    private static boolean overHttp(String path, int hop) {
        return path.lines().anyMatch(line -> line.matches("\\| " + hop + " \\|.*\\| over HTTP: .*"));
    }

    @Test void theGuideForJavaShowsItsProgramsAsTheyAre() throws IOException {
        String guide = Files.readString(ROOT.resolve("docs/guide/java.md"));
        List<Path> programs = files("deploy/src/test/java/bios/example", ".java");
        assertEquals(2, programs.size());
        for (Path program : programs) {
            String source = Files.readString(program);
            String shown = source.substring(source.indexOf("import ")).strip();
            assertTrue(guide.contains(shown), program::toString);
        }
    }

    /// One term, one meaning: the glossary decides, and names that it has replaced do not come again.
    @Test void retiredNamesAreNotUsed() throws IOException {
        List<TidyRules.Retired> names = retiredNames();
        List<Path> all = new ArrayList<>(pages());
        all.addAll(sources("main", ".java"));
        all.addAll(sources("test", ".java"));
        all.addAll(files("protocol/python", ".py"));
        all.addAll(files("deploy", ".py"));
        for (String module : MODULES)
            for (String suffix : List.of(".cu", ".cuh", ".sh", ".conf")) all.addAll(files(module, suffix));
        all.add(ROOT.resolve("bios"));
        List<String> wrong = new ArrayList<>();
        for (Path file : all)
            if (!relative(file).startsWith("deploy/src/test/java/bios/Tidy"))
                TidyRules.retired(names, Files.readString(file))
                        .forEach(found -> wrong.add(relative(file) + ": " + found));
        assertEquals(List.of(), wrong);
        assertFalse(names.isEmpty());
    }

    private static List<TidyRules.Retired> retiredNames() throws IOException {
        return Files.readAllLines(ROOT.resolve("deploy/src/test/resources/retired-names.txt")).stream()
                .filter(line -> line.contains(" -> ") && !line.startsWith("#"))
                .map(TidyRules.Retired::of).toList();
    }

    /// What has replaced a retired name is in the code.
    @Test void theNamesOfTodayExist() throws IOException {
        Map<String, String> declaring = new TreeMap<>();
        for (String kind : List.of("main", "test", "bench"))
            for (Path file : sources(kind, ".java")) {
                String text = Files.readString(file);
                for (String type : TidyRules.types(text)) declaring.merge(type, text, String::concat);
            }
        Set<String> missing = new TreeSet<>();
        for (TidyRules.Retired retired : retiredNames())
            for (String now : retired.replacements()) {
                String[] parts = now.split("\\.", 2);
                String text = declaring.getOrDefault(parts[0], "");
                if (!text.contains(parts[parts.length - 1])) missing.add(now);
            }
        assertEquals(Set.of(), missing);
    }

    @Test void onlyTheFactoryNamesTheCpuBackend() throws IOException {
        List<String> wrong = new ArrayList<>();
        for (Path file : sources("main", ".java")) {
            String name = relative(file);
            if (name.startsWith(CPU_BACKEND)) continue;
            String text = Files.readString(file);
            if (!name.equals(DEVICE_FACTORY))
                TidyRules.cpuBackend(text).forEach(found -> wrong.add(name + ": " + found));
            if (name.startsWith("worker/") && TidyRules.usesHostMemory(text)
                    && HOST_MEMORY.keySet().stream().noneMatch(name::startsWith))
                wrong.add(name + ": MemorySegment");
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

    private static List<Path> pages() throws IOException {
        List<Path> pages = new ArrayList<>(files("docs", ".md"));
        pages.add(ROOT.resolve("README.md"));
        return pages;
    }

    /// The sources of all modules.
    ///
    /// @param kind `main` or `test`
    private static List<Path> sources(String kind, String suffix) throws IOException {
        List<Path> sources = new ArrayList<>();
        for (String module : MODULES) sources.addAll(files(module + "/src/" + kind + "/java", suffix));
        return sources;
    }

    private static List<Path> files(String folder, String suffix) throws IOException {
        Path start = ROOT.resolve(folder);
        if (!Files.isDirectory(start)) return List.of();
        try (Stream<Path> all = Files.walk(start)) {
            return all.filter(f -> f.toString().endsWith(suffix) && Files.isRegularFile(f)
                    && !f.toString().contains("/target/")).sorted().toList();
        }
    }
}
