"""Charts of a page as SVG that takes the page's width, fonts and colours: places are percentages, words are text."""
