package bios.worker.load;

import ai.djl.huggingface.tokenizers.Encoding;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import ai.djl.huggingface.tokenizers.jni.CharSpan;
import com.fasterxml.jackson.core.JsonProcessingException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// A model's tokenizer, read from its `tokenizer.json`. Thread-safe.
public final class Tokenizer implements AutoCloseable {
    /// The files that another loader needs to produce the same tokens.
    private static final List<String> FILES = List.of("added_tokens.json", "chat_template.jinja",
            "merges.txt", "special_tokens_map.json", "tokenizer.json",
            "tokenizer.model", "tokenizer_config.json", "vocab.json");
    private static final String MAIN = "tokenizer.json";
    /// Tokens before new ones that are decoded with them.
    private static final int CONTEXT = 4;
    /// More tokens than any character has.
    private static final int LONGEST_CHARACTER = 16;
    private static final char BROKEN = '\uFFFD';

    static {
        // Without this the library reports its use to its vendor.
        System.setProperty("OPT_OUT_TRACKING", "true");
        System.setProperty("ai.djl.offline", "true");
        // The library for GPUs is not in the jar and would be downloaded.
        if (System.getenv("RUST_FLAVOR") == null) System.setProperty("RUST_FLAVOR", "cpu");
        // It unpacks a native library in the home folder, which is often read-only in containers.
        boolean chosen = System.getenv("DJL_CACHE_DIR") != null
                || System.getProperty("DJL_CACHE_DIR") != null;
        if (!chosen && !Files.isWritable(Path.of(System.getProperty("user.home"))))
            System.setProperty("DJL_CACHE_DIR", Path.of(System.getProperty("java.io.tmpdir"), "bios-djl")
            .toString());
    }

    private final HuggingFaceTokenizer tokenizer;
    private final Map<String, byte[]> files;

    private Tokenizer(HuggingFaceTokenizer tokenizer, Map<String, byte[]> files) {
        this.tokenizer = tokenizer;
        this.files = files;
    }

    /// Reads the folder's tokenizer; empty if it has no `tokenizer.json`, [ModelRefused] if that is invalid.
    public static Optional<Tokenizer> open(Path folder) {
        Path main = folder.resolve(MAIN);
        if (!Files.isRegularFile(main)) return Optional.empty();
        try (InputStream in = new ByteArrayInputStream(AddedTokens.merged(folder, main))) {
            // The tokenizer must neither truncate nor pad texts, even if the file enables that.
            var options = Map.of("truncation", "false", "padding", "false");
            var tokenizer = HuggingFaceTokenizer.newInstance(in, options);
            return Optional.of(new Tokenizer(tokenizer, files(folder)));
        } catch (ModelRefused refused) {
            throw refused;
        } catch (JsonProcessingException broken) {
            throw new ModelRefused(main.toString(), "is not JSON (" + Safetensors.brief(broken) + ")",
                    "restore the original file");
        } catch (IOException failed) {
            throw new UncheckedIOException(main + " cannot be read", failed);
        } catch (RuntimeException broken) {
            throw new ModelRefused(main.toString(), "is not a tokenizer: " + broken.getMessage(),
                    "restore the original file");
        }
    }

    private static Map<String, byte[]> files(Path folder) throws IOException {
        Map<String, byte[]> files = new TreeMap<>();
        for (String name : FILES) {
            Path file = folder.resolve(name);
            if (Files.isRegularFile(file)) files.put(name, Files.readAllBytes(file));
        }
        return files;
    }

    /// The tokens of a text.
    ///
    /// @param addSpecialTokens whether to add the model's special tokens, e.g. a beginning-of-text token
    public int[] encode(String text, boolean addSpecialTokens) {
        return ids(tokenizer.encode(text, addSpecialTokens, false));
    }

    private static int[] ids(Encoding encoding) {
        return Arrays.stream(encoding.getIds()).mapToInt(Math::toIntExact).toArray();
    }

    /// Tokens, their text, and the part of each token in it.
    ///
    /// @param ends where the part of each token ends in the text; it begins where that of the token before
    ///     ends. The part of a token that the tokenizer adds to a text is empty, and so are those of all
    ///     tokens of one character but the last
    public record Aligned(int[] tokens, String text, int[] ends) {}

    /// The tokens of a text, with the model's special tokens, and the part of each in the text as it is
    /// given: what tokens decode to lacks what a normalizer has changed.
    public Aligned align(String text) {
        Encoding encoding = tokenizer.encode(text, true, false);
        CharSpan[] spans = encoding.getCharTokenSpans();
        int[] points = text.codePoints().toArray();
        int[] ends = new int[spans.length];
        int begin = points.length; // of the part behind
        boolean last = true;
        for (int i = spans.length - 1; i >= 0; i--) {
            if (spans[i] == null || encoding.getSpecialTokenMask()[i] == 1) continue;
            ends[i] = last ? begin : partEnd(points, spans[i].getEnd(), begin);
            begin = Math.min(begin, spans[i].getStart());
            last = false;
        }
        int before = 0;
        int end = 0;
        for (int i = 0; i < ends.length; i++) {
            end = text.offsetByCodePoints(end, Math.max(0, ends[i] - before));
            before = Math.max(before, ends[i]);
            ends[i] = end;
        }
        return new Aligned(ids(encoding), text, ends);
    }

    /// Where the part of a token ends. Of what no token covers, spaces belong to the token behind them, and
    /// what was composed with a character, or dropped, to the token before it.
    private static int partEnd(int[] points, int end, int begin) {
        int at = Math.min(end, begin);
        while (at < begin && !Character.isWhitespace(points[at]) && !Character.isSpaceChar(points[at])) at++;
        return at;
    }

    /// The text of tokens, of special ones too, and the part of each.
    public Aligned align(int[] tokens) {
        var text = new StringBuilder();
        int[] ends = new int[tokens.length];
        List<String> texts = decodeNext(new int[0], tokens, true, false);
        for (int i = 0; i < ends.length; i++) ends[i] = text.append(texts.get(i)).length();
        return new Aligned(tokens, text.toString(), ends);
    }

    /// The text of tokens; invalid UTF-8 gives U+FFFD, unknown ids are skipped.
    public String decode(int[] tokens, boolean skipSpecialTokens) {
        if (tokens.length == 0) return "";
        return tokenizer.decode(Arrays.stream(tokens).asLongStream().toArray(), skipSpecialTokens);
    }

    /// The text of each token of a growing sequence, without special tokens: what it adds to the text
    /// before it. The tokens of one character give its text with the last of them; those at the end of
    /// `next` whose character is not complete are left out.
    ///
    /// @param known the last tokens before `next`: a decoder may treat the first word of a text in its own
    ///     way
    /// @param last whether the sequence ends: nothing is left out
    public List<String> decodeNext(int[] known, int[] next, boolean last) {
        return decodeNext(known, next, last, true);
    }

    private List<String> decodeNext(int[] known, int[] next, boolean last, boolean skipSpecialTokens) {
        List<String> texts = new ArrayList<>();
        int[] all = Arrays.copyOf(known, known.length + next.length);
        System.arraycopy(next, 0, all, known.length, next.length);
        int from = 0;
        int whole = known.length;
        for (int to = whole + 1; to <= all.length; to++) {
            String before = decode(Arrays.copyOfRange(all, from, whole), skipSpecialTokens);
            String now = decode(Arrays.copyOfRange(all, from, to), skipSpecialTokens);
            String fresh = now.substring(common(before, now));
            boolean broken = !fresh.isEmpty() && fresh.charAt(fresh.length() - 1) == BROKEN;
            if (broken && to - whole < LONGEST_CHARACTER && !(last && to == all.length)) continue;
            while (texts.size() < to - known.length - 1) texts.add("");
            texts.add(fresh);
            whole = to;
            from = Math.max(from, whole - CONTEXT);
        }
        return texts;
    }

    /// The text of each token for itself, special tokens too, as it stands inside a text: a decoder may drop
    /// the space before the first word. U+FFFD stands for bytes that are no whole character.
    public List<String> decodeEach(int[] tokens) {
        return Arrays.stream(tokens).mapToObj(token -> {
            String once = decode(new int[] {token}, false);
            String twice = decode(new int[] {token, token}, false);
            return twice.substring(common(once, twice));
        }).toList();
    }

    private static int common(String a, String b) {
        int n = 0;
        while (n < a.length() && n < b.length() && a.charAt(n) == b.charAt(n)) n++;
        return n > 0 && n < b.length() && Character.isLowSurrogate(b.charAt(n)) ? n - 1 : n;
    }

    /// Tokens of `added_tokens_decoder` that this tokenizer gives another id than that file says.
    public List<String> warnings(Path folder) {
        return AddedTokens.of(folder).entrySet().stream()
                .filter(token -> !Arrays.equals(encode(token.getKey(), false), new int[] {token.getValue()}))
                .map(token -> "tokenizer_config.json gives the token '" + token.getKey() + "' the id "
                        + token.getValue() + ", tokenizer.json encodes it as "
                        + Arrays.toString(encode(token.getKey(), false))).toList();
    }

    /// The contents of its files by name: `tokenizer.json`, `tokenizer_config.json`, ...
    public Map<String, byte[]> files() {
        return Map.copyOf(files);
    }

    @Override public void close() {
        tokenizer.close();
    }
}
