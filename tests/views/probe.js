// Run inside a page by test_html.py: writes into the title what sticks out, overlaps, or was fetched.
addEventListener("load", () => {
  const found = [];
  const width = document.documentElement.clientWidth;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const box = (element) => element.getBoundingClientRect();
  const meet = (x, y, slack) =>
    x.left < y.right - 1 && y.left < x.right - 1 && x.top < y.bottom - slack && y.top < x.bottom - slack;

  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  for (const element of all(".attnflow :is(p, h1, h2, h3, li, dd, .text span)")) {
    if (element.closest(".wide, .picture")) continue; // these scroll by themselves
    const { left, right } = box(element);
    if (right > left && (right > width + 1 || left < -1)) found.push(`sticks out: ${element.textContent.slice(0, 40)}`);
  }

  const blocks = all(".attnflow > *, .attnflow section > *").filter((element) => box(element).height);
  for (const a of blocks)
    for (const b of blocks)
      if (!a.contains(b) && !b.contains(a) && meet(box(a), box(b), 1)) found.push(`overlap: ${a.className} ${b.className}`);

  for (const svg of all("svg")) {
    const labels = all("text:not([transform])", svg); // slanted ones have boxes larger than themselves
    labels.forEach((a, i) =>
      labels.slice(i + 1).forEach((b) => {
        if (meet(box(a), box(b), 4)) found.push(`labels overlap: ${a.textContent} / ${b.textContent}`);
      })
    );
  }

  for (const element of all(".picture")) // where there is room, nothing has to be scrolled to
    if (width >= 1120 && element.scrollWidth > element.clientWidth + 1) found.push("a picture is cut off");

  for (const entry of performance.getEntriesByType("resource")) found.push(`fetched ${entry.name}`);
  document.title = JSON.stringify({
    found: [...new Set(found)].slice(0, 8),
    background: getComputedStyle(document.querySelector(".attnflow")).backgroundColor,
  });
});
