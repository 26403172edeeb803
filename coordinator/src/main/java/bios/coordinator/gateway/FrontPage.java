package bios.coordinator.gateway;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpHeader;
import org.apache.pekko.http.javadsl.model.HttpMethods;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.model.headers.RawHeader;

/// The page at `/` for a browser: what this is, what it serves, and how to use it. It holds nothing that needs
/// a key. Programs, which do not accept HTML, get the same error there as at any other unknown path.
final class FrontPage {
    private final ActorSystem<?> system;
    private final byte[] page;

    FrontPage(ActorSystem<?> system) {
        this.system = system;
        try (InputStream in = FrontPage.class.getResourceAsStream("/console/index.html")) {
            if (in == null) throw new IllegalStateException("console/index.html is not in the program");
            page = in.readAllBytes();
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    /// The response, if a browser asks for the page.
    Optional<CompletionStage<HttpResponse>> answer(HttpRequest request) {
        String path = request.getUri().path();
        boolean browser = request.getHeader("Accept").map(HttpHeader::value).orElse("").contains("text/html");
        if (!request.method().equals(HttpMethods.GET) || !browser || !(path.equals("/") || path.isEmpty()))
            return Optional.empty();
        request.discardEntityBytes(system);
        return Optional.of(CompletableFuture.completedStage(HttpResponse.create()
                .withEntity(ContentTypes.TEXT_HTML_UTF8, page)
                .addHeader(RawHeader.create("Content-Security-Policy",
                        "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
                        + " frame-ancestors 'none'"))
                .addHeader(RawHeader.create("X-Content-Type-Options", "nosniff"))));
    }
}
