// Runs before the page is drawn, so that nothing flashes: the theme that was chosen, if one was.
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
