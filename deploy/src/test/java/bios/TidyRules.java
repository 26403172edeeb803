package bios;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/// The rules of the source tree, as functions of a file's text, so that each can be shown to fail.
/// [TidyTest] applies them to the tree, [TidyRulesTest] to planted violations.
final class TidyRules {
    /// Packages that a module's main code must not import.
    private static final Map<String, List<String>> FORBIDDEN_IMPORTS = Map.of(
            "protocol", List.of("bios.persistence", "bios.coordinator", "bios.worker", "bios.node"),
            "persistence", List.of("bios.coordinator", "bios.worker", "bios.node"),
            "coordinator", List.of("bios.worker", "bios.node"),
            "worker", List.of("bios.coordinator", "bios.node"),
            "deploy", List.of());

    private static final Pattern CLOCK_OR_RANDOM = Pattern.compile(
            "System\\.currentTimeMillis|System[.:]+nanoTime|Instant\\.now\\(\\)|LocalDate(Time)?\\.now"
            + "|Clock\\.system|Math\\.random|new Random\\(\\)|ThreadLocalRandom|UUID\\.randomUUID"
            + "|new SecureRandom\\(\\)");

    /// Calls that block a thread whatever their receiver is.
    private static final Pattern BLOCKING = Pattern.compile(
            "Thread\\.sleep|LockSupport\\.park|\\bAwait\\.(result|ready)|\\.join\\(\\)|::join\\b"
            + "|\\.get\\([^()]*TimeUnit\\.|\\.invokeAll\\(|\\.waitFor\\(\\)"
            + "|toCompletableFuture\\(\\)\\s*\\.get\\(|[lL]atch\\.await\\(|[bB]arrier\\.await\\("
            + "|[cC]ondition\\.await\\(|(?<![.\\w])wait\\(");

    private static final String TYPE_ARGUMENTS = "<(?:[^<>;]|<(?:[^<>;]|<[^<>;]*>)*>)*>";
    private static final Pattern FUTURE = Pattern.compile(
            "\\b(?:(?:Completable)?Future|CompletionStage)" + TYPE_ARGUMENTS + "\\s+(\\w+)\\b");
    private static final Pattern QUEUE = Pattern.compile(
            "\\b\\w*(?:Blocking|Transfer)\\w*" + TYPE_ARGUMENTS + "\\s+(\\w+)\\b");
    private static final Pattern SEMAPHORE = Pattern.compile("\\bSemaphore\\s+(\\w+)\\b");

    private static final Pattern LEFT_FOR_LATER = Pattern.compile(
            "\\b(TO" + "DO|FIX" + "ME|XX" + "X)\\b|@Dis" + "abled\\b|assertTrue\\(tr" + "ue\\)");

    private static final Pattern FAULT = Pattern.compile("\\bFault\\s*\\.\\s*(?:user|server)\\(");
    private static final Pattern CODE_PARAMETER =
            Pattern.compile("\\b(\\w+)\\(([^()]*)\\bString code\\b[^()]*\\)\\s*\\{");
    private static final Pattern CONSTANT = Pattern.compile("\\bString (\\w+) = \"([a-z_]+)\";");
    private static final Pattern TYPE = Pattern.compile("\\b(?:class|record|interface|enum) (\\w+)\\b");
    private static final Pattern METRIC = Pattern.compile("\\.name\\(\"(bios_\\w+)\"\\)");

    private TidyRules() {}

    /// Imports of `text`, main code of `module`, against the direction of modules.
    static List<String> imports(String module, String text) {
        var wrong = new ArrayList<String>();
        for (String line : text.split("\n"))
            for (String forbidden : FORBIDDEN_IMPORTS.get(module))
                if (line.matches("import (static )?" + Pattern.quote(forbidden) + "\\..*")) wrong.add(line);
        return wrong;
    }

    /// Uses of the wall clock and of unseeded randomness in lines that are not marked as an edge.
    static List<String> clockOrRandom(String text) {
        return unmarked(text, CLOCK_OR_RANDOM);
    }

    /// Calls that block a thread in lines that are not marked as an edge: sleeping, joining threads or
    /// futures, waiting for monitors, queues, latches, semaphores and processes.
    static List<String> blocking(String text) {
        var pattern = new StringBuilder(BLOCKING.pattern());
        for (String future : names(FUTURE, text)) pattern.append("|\\b").append(future)
                .append("(?:\\((?:[^()]|\\([^()]*\\))*\\))?\\.get\\(");
        for (String queue : names(QUEUE, text))
            pattern.append("|\\b").append(queue).append("\\.(take\\(\\)|put\\()");
        for (String permit : names(SEMAPHORE, text)) pattern.append("|\\b").append(permit)
                .append("\\.acquire(Uninterruptibly)?\\(");
        return unmarked(text, Pattern.compile(pattern.toString()));
    }

    private static Set<String> names(Pattern declaration, String text) {
        var names = new TreeSet<String>();
        Matcher found = declaration.matcher(text);
        while (found.find()) names.add(found.group(1));
        return names;
    }

    private static List<String> unmarked(String text, Pattern pattern) {
        var wrong = new ArrayList<String>();
        String[] lines = text.split("\n");
        for (int i = 0; i < lines.length; i++) {
            String code = lines[i].strip();
            if (!code.startsWith("//") && pattern.matcher(code).find() && !code.contains("// edge: "))
                wrong.add((i + 1) + ": " + code);
        }
        return wrong;
    }

    /// Work that was put off, and tests that are switched off.
    static List<String> leftForLater(String text) {
        return found(LEFT_FOR_LATER, text, 0);
    }

    private static List<String> found(Pattern pattern, String text, int group) {
        var all = new ArrayList<String>();
        Matcher found = pattern.matcher(text);
        while (found.find()) all.add(found.group(group));
        return all;
    }

    private static final Pattern KERNEL = Pattern.compile(
            "__global__\\s+(?:\\w+\\([^)]*\\)\\s+)*void\\s+(?:\\w+\\([^)]*\\)\\s+)*(\\w+)\\s*\\(");

    /// The CUDA kernels of `text` that no class launches: the conformance suite of the verbs, which every
    /// backend passes, tests those that are launched.
    ///
    /// @param launching texts of the backend's classes, which may put a number or a `suffix` behind a name
    static List<String> kernels(String text, String launching) {
        return KERNEL.matcher(text).results().map(found -> found.group(1))
                .filter(name -> !launching.contains('"' + name + '"')
                        && !launching.contains('"' + name.replaceFirst("(?<=_)\\d+$", "") + "\" +")
                        && !Pattern.compile('"' + name.replaceFirst("_\\d+$", "")
                                + "\"[^;]{0,40}\\+ suffix").matcher(launching).find())
                .toList();
    }

    /// The string constants of `text` that may be error codes, by name.
    static Map<String, String> constants(String text) {
        var constants = new TreeMap<String, String>();
        Matcher found = CONSTANT.matcher(text);
        while (found.find()) constants.put(found.group(1), found.group(2));
        return constants;
    }

    /// The error codes that `text` raises. What is neither a literal, nor a constant, nor handed on as `code`
    /// is in the result as it is written, so that it cannot stay undocumented.
    ///
    /// @param constants those of all modules
    static Set<String> errorCodes(String text, Map<String, String> constants) {
        var codes = new TreeSet<String>();
        Matcher fault = FAULT.matcher(text);
        while (fault.find()) add(codes, argument(text, fault.end(), 0), constants);
        Matcher declared = CODE_PARAMETER.matcher(text);
        while (declared.find()) {
            int place = (int) declared.group(2).chars().filter(c -> c == ',').count();
            Matcher call = Pattern.compile("\\b" + declared.group(1) + "\\(").matcher(text);
            while (call.find()) if (call.start() != declared.start())
                add(codes, argument(text, call.end(), place), constants);
        }
        return codes;
    }

    private static void add(Set<String> codes, String argument, Map<String, String> constants) {
        String name = argument.substring(argument.lastIndexOf('.') + 1);
        if (argument.matches("\"[a-z_]+\"")) codes.add(argument.replace("\"", ""));
        else if (constants.containsKey(name)) codes.add(constants.get(name));
        else if (!argument.equals("code") && !argument.startsWith("String code")) codes.add(argument);
    }

    /// The argument of that place of a call whose arguments begin at `from`.
    private static String argument(String text, int from, int place) {
        int depth = 0;
        int start = from;
        boolean quoted = false;
        for (int i = from; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' && text.charAt(i - 1) != '\\') quoted = !quoted;
            if (quoted) continue;
            if ((c == ',' || c == ')') && depth == 0) {
                if (place-- == 0 || c == ')') return text.substring(start, i).strip();
                start = i + 1;
            }
            if (c == '(') depth++;
            if (c == ')') depth--;
        }
        return "";
    }

    /// The names of the metrics that `text` registers.
    static Set<String> metrics(String text) {
        return new TreeSet<>(found(METRIC, text, 1));
    }

    /// The words of a page that are written as code: `` `word` ``.
    static Set<String> codeWords(String page) {
        return new TreeSet<>(found(Pattern.compile("`([^`\\s]+)`"), page, 1));
    }

    /// The targets of a page's links: `file`, `file#anchor` or `#anchor`.
    static List<String> links(String page) {
        return found(Pattern.compile("\\]\\(([^)\\s]+)\\)"), page, 1).stream()
                .filter(link -> !link.contains("://") && !link.startsWith("mailto:")).toList();
    }

    /// The anchors of a page, one for each heading, as GitHub makes them.
    static Set<String> anchors(String page) {
        var anchors = new TreeSet<String>();
        for (String heading : found(Pattern.compile("(?m)^#+ (.*)$"), page, 1))
            anchors.add(heading.strip().toLowerCase(Locale.ROOT)
                    .replaceAll("[`*_.,:;()/?!+'’\"=]", "").replace(' ', '-'));
        return anchors;
    }

    /// A name that is no longer used, and what has replaced it.
    ///
    /// @param scope the package where it is retired; empty: everywhere
    record Retired(String scope, String name, String now) {
        /// Reads a line `Old -> New`, where `Old` may have its package before it.
        static Retired of(String line) {
            String[] parts = line.split(" -> ", 2);
            int dot = parts[0].lastIndexOf('.');
            return new Retired(dot < 0 ? "" : parts[0].substring(0, dot),
                    parts[0].substring(dot + 1).strip(), parts.length < 2 ? "" : parts[1].strip());
        }

        /// The types that have replaced it, each with the name of its member behind a dot where one is given.
        List<String> replacements() {
            return Stream.of(now.split(", ")).map(type -> type.replaceFirst(" \\(.*", "")
                    .replaceFirst("^(?:[a-z]\\w*\\.)*", "")).toList();
        }

        /// Whether it is one word of the language too (`Line`, `Call`), which only a type can be wrong with.
        boolean isWord() {
            return name.matches("[A-Z][a-z]*");
        }
    }

    /// Where `text`, Java or a page, uses a retired name. A name of several words is looked for everywhere;
    /// one that is a word too, where it names a type: declared, constructed, linked or written as code. A
    /// name that is retired in one package must not be declared there.
    static List<String> retired(List<Retired> names, String text) {
        Matcher declared = Pattern.compile("(?m)^package ([\\w.]+);").matcher(text);
        String inPackage = declared.find() ? declared.group(1) : "";
        var wrong = new ArrayList<String>();
        for (Retired retired : names) {
            if (!text.contains(retired.name())
                    || !retired.scope().isEmpty() && !retired.scope().equals(inPackage)) continue;
            String name = Pattern.quote(retired.name());
            String declaration = "\\b(?:class|record|interface|enum) " + name + "\\b";
            Pattern use = Pattern.compile(!retired.scope().isEmpty() ? declaration
                    : !retired.isWord() ? "\\b" + name + "\\b" : declaration + "|\\bnew " + name + "[<(]|\\["
                    + name + "[\\]#]|`" + name + "`");
            if (use.matcher(text).find()) wrong.add(retired.name() + " is now: " + retired.now());
        }
        return wrong;
    }

    /// The names of the source files in each row of a table of hops: its second column.
    static List<List<String>> hops(String page) {
        return page.lines().filter(line -> line.matches("\\| \\d+ \\|.*"))
                .map(line -> found(Pattern.compile("\\w+\\.(?:java|py)"), line.split("\\|")[2], 0)).toList();
    }

    /// Whether the source of one type or Python module names the other.
    ///
    /// @param sources texts by name of the file
    static boolean linked(String one, String other, Map<String, String> sources) {
        return names(one, other, sources) || names(other, one, sources);
    }

    private static boolean names(String file, String other, Map<String, String> sources) {
        String name = other.substring(0, other.lastIndexOf('.'));
        return Pattern.compile("\\b" + name + "\\b").matcher(sources.getOrDefault(file, "")).find();
    }

    /// The names of the types that `text` declares.
    static Set<String> types(String text) {
        return new TreeSet<>(found(TYPE, text, 1));
    }

    /// How `text`, main code outside the CPU backend, reaches into it.
    static List<String> cpuBackend(String text) {
        return found(Pattern.compile("\\bbios\\.worker\\.device\\.cpu\\b[\\w.*]*"), text, 0);
    }

    /// Whether `text` uses memory of the host as the CPU backend does.
    static boolean usesHostMemory(String text) {
        return Pattern.compile("\\bMemorySegment\\b").matcher(text).find();
    }
}
