"""What the pages of results share: their style and frame, and charts; and the page about a pack's errors."""
