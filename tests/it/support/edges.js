(() => {
  const figures = [...document.querySelectorAll("figure")];
  figures.forEach((figure, number) => {
    figure.style.position = "relative";
    for (const edge of ["top", "bottom"]) {
      const mark = document.createElement("span");
      mark.id = `edge-${number}-${edge}`;
      mark.style.cssText = `position:absolute;left:0;${edge}:0`;
      figure.append(mark);
      // Only places that something refers to are listed in the document.
      const link = document.createElement("a");
      link.href = `#${mark.id}`;
      link.textContent = ".";
      document.body.append(link);
    }
  });
  return figures.length;
})()
