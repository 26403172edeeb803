package bios.coordinator.gateway;

import bios.protocol.model.ModelInfo;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpMethods;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.model.headers.RawHeader;

/// What a browser finds at the root, and the OpenAPI document at `/openapi.json`. Both without a key: they
/// tell what this server is, and nothing of its accounts.
final class FrontPage {
    /// The version of the service.
    static final String VERSION = Optional.ofNullable(FrontPage.class.getPackage().getImplementationVersion())
            .orElse("0.1.0");
    private static final String PAGE = """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><title>Bios</title><style>
            body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem;
                   color: #222; background: #fff }
            code, pre { font: 14px ui-monospace, monospace; background: #f3f3f3; padding: .1rem .3rem }
            pre { padding: .8rem; overflow-x: auto }
            table { border-collapse: collapse } td, th { text-align: left; padding: .2rem 1rem .2rem 0 }
            </style></head><body>
            <h1>Bios</h1>
            <p>This server trains and samples LoRA adapters of open-weight language models. Version %s.</p>
            <h2>Models</h2>
            %s
            <h2>Use it</h2>
            <pre>pip install ./protocol/python    # in the folder of the distribution
            bios login
            bios models</pre>
            <p>In Python: <code>import bios; client = bios.ServiceClient()</code>. The environment names this
            address in <code>BIOS_BASE_URL</code> and, where keys are needed, a key in
            <code>BIOS_API_KEY</code>.</p>
            <p>Clients of Tinker's protocol work, too: set <code>base_url</code> to this address, and an
            <code>api_key</code> that begins with <code>tml-</code>.</p>
            <p><a href="openapi.json">openapi.json</a> describes every call;
            <a href="healthz">healthz</a>, <a href="readyz">readyz</a> and <a href="metrics">metrics</a> are
            for operators. The manual is the folder <code>docs</code> of the distribution: begin with
            <code>docs/tutorial.md</code>; <code>docs/reference/http.md</code> has the protocol.</p>
            </body></html>
            """;

    private final ActorSystem<?> system;
    private final GatewayServices services;
    private final byte[] document;

    /// @param document the OpenAPI document
    FrontPage(ActorSystem<?> system, GatewayServices services, Map<String, Object> document) {
        this.system = system;
        this.services = services;
        this.document = JsonWriter.write(document);
    }

    /// The response, if the request is for one of both.
    Optional<CompletionStage<HttpResponse>> answer(HttpRequest request) {
        if (!request.method().equals(HttpMethods.GET)) return Optional.empty();
        HttpResponse response = switch (request.getUri().path()) {
            case "/", "" -> HttpResponse.create().withEntity(ContentTypes.TEXT_HTML_UTF8,
                    page().getBytes(StandardCharsets.UTF_8)).addHeader(RawHeader.create(
                            "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"));
            case "/openapi.json" ->
                    HttpResponse.create().withEntity(ContentTypes.APPLICATION_JSON, document);
            default -> null;
        };
        if (response == null) return Optional.empty();
        request.discardEntityBytes(system);
        return Optional.of(CompletableFuture.completedStage(response));
    }

    private String page() {
        var rows = new StringBuilder();
        for (ModelInfo model : services.directory().servedModels())
            rows.append("<tr><td><code>").append(escaped(model.name().value())).append("</code></td><td>")
                    .append(escaped(model.architecture())).append("</td><td>").append(model.contextLength())
                    .append("</td></tr>\n");
        return PAGE.formatted(escaped(VERSION), rows.isEmpty() ? "<p>No worker serves a model now.</p>"
                : "<table><tr><th>Name</th><th>Architecture</th><th>Context</th></tr>\n" + rows + "</table>");
    }

    private static String escaped(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\"", "&quot;");
    }
}
