package bios.worker.load;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/// Recognises what a failed or unfinished download leaves in the place of a model's file, by its first bytes.
final class DownloadCheck {
    static final int HEAD = 64;
    private static final String AGAIN = "download it again";

    private DownloadCheck() {}

    /// Refuses a file of JSON that is something else by its first bytes.
    static void requireJson(String file, Path path) throws IOException {
        try (InputStream in = Files.newInputStream(path)) {
            require(file, in.readNBytes(HEAD));
        }
    }

    /// Refuses a safetensors file that is something else by its first bytes.
    static void requireTensors(String file, byte[] head) {
        require(file, head);
        boolean readable = text(head).chars().allMatch(c -> c >= ' ' && c < 127 || c == '\n' || c == '\r');
        if (head.length >= 8 && readable)
            throw new ModelRefused(file, "is text ('" + text(head).strip().lines().findFirst().orElse("")
                    + "') and not safetensors", "an answer of the server was saved in its place: " + AGAIN);
    }

    private static void require(String file, byte[] head) {
        if (head.length == 0)
            throw new ModelRefused(file, "is empty", "wait until it is downloaded, or " + AGAIN);
        String text = text(head).stripLeading();
        if (text.startsWith("version https://git-lfs"))
            throw new ModelRefused(file, "is a Git LFS pointer and not the file itself",
                    "run `git lfs pull` in its folder");
        if (text.startsWith("<"))
            throw new ModelRefused(file, "is a web page (HTML or XML)",
                    "an error page was saved in its place: " + AGAIN
                    + ", with a token if the model needs one");
        if (text(head).chars().allMatch(c -> c == 0))
            throw new ModelRefused(file, "begins with zeros", "wait until it is downloaded, or " + AGAIN);
    }

    private static String text(byte[] head) {
        return new String(head, StandardCharsets.ISO_8859_1);
    }
}
