package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

/// The page for a browser.
class FrontPageTest {
    @Test void aBrowserFindsAPageWithoutAKeyAndAProgramTheUsualError() {
        try (var service = new TestService(Accounts.open(), "")) {
            Answer page = service.get("/", "Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
            assertEquals(200, page.status());
            assertTrue(new String(page.bytes(), StandardCharsets.UTF_8).contains("BIOS_BASE_URL"));
            assertTrue(page.response().headers().firstValue("Content-Security-Policy").isPresent());
            assertEquals(404, service.get("/", "Accept", "application/json").status());
            assertEquals(404, service.get("/other", "Accept", "text/html").status());
        }
    }
}
