package bios.persistence.index;

import java.util.List;

/// One page of a listing.
///
/// @param items the rows of the page
/// @param total how many rows the listing has
public record ListingPage<T>(List<T> items, long total) {
    public ListingPage {
        items = List.copyOf(items);
    }
}
