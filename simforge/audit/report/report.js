const shown = { dimension: "", label: "", words: "" };
function filter() {
  for (const article of document.querySelectorAll("#pairs article")) {
    const fits = (!shown.dimension || article.dataset.dimension === shown.dimension)
      && (!shown.label || article.dataset.label === shown.label)
      && article.textContent.toLowerCase().includes(shown.words);
    article.hidden = !fits;
  }
  const left = document.querySelectorAll("#pairs article:not([hidden])").length;
  document.getElementById("left").textContent = String(left);
}
for (const name of ["dimension", "label"]) {
  document.getElementById(name).addEventListener("change", (event) => { shown[name] = event.target.value; filter(); });
}
document.getElementById("words").addEventListener("input", (event) => {
  shown.words = event.target.value.toLowerCase();
  filter();
});
