"""Solutions in the styles that language models write, to look at how they are cut into steps."""

EXAMPLES = {
    "chains": """\
Step 1: 7 + 8 + 0 = 15
Step 2: 5 + 6 + 1 = 12
Answer: \\boxed{125}""",
    "numbered": """\
We count the apples day by day.

1. On Monday Ann has 12 apples and gives away 5. That leaves 12 - 5 = 7.
2. On Tuesday she buys as many as she has.
   So she has 2 * 7 = 14.
3. On Wednesday she eats 3, which leaves 14 - 3 = 11.

The answer is 11.""",
    "numbered, Markdown": """\
### Step 1: Find the radius

The area is $\\pi r^2 = 9\\pi$. Dividing by $\\pi$ gives $r^2 = 9$.

So $r = 3$.

### Step 2: Find the circumference

It is

\\[
2 \\pi r = 6 \\pi.
\\]

**Final answer:** $\\boxed{6\\pi}$""",
    "numbered, bold": """\
**Step 1:** The train goes 60 km/h for 2.5 h, which is 150 km.

**Step 2:** The rest is 240 km - 150 km = 90 km.

At 45 km/h it takes 2 h.

**Step 3:** In all that is 4.5 h, so the answer is $\\boxed{4.5}$.""",
    "paragraphs": """\
Let x be the number of boys. Then there are 30 - x girls.

Every boy has two pens and every girl three. Together they have 78, so 2x + 3(30 - x) = 78.

Solving this, 90 - x = 78 and x = 12. There are \\boxed{12} boys.""",
    "LaTeX": """\
We use the quadratic formula with $a = 1$, $b = -5$ and $c = 6$. The discriminant is

$$
b^2 - 4ac = 25 - 24

= 1.
$$

Both roots are therefore rational:

\\begin{align*}
x_1 &= \\frac{5 + 1}{2} = 3, \\\\

x_2 &= \\frac{5 - 1}{2} = 2.
\\end{align*}

Their sum is $\\boxed{5}$.""",
    "code": """\
We let a program count the pairs.

```python
count = 0
for a in range(1, 10):
    # 1. the smaller number comes first

    # 2. and both are digits
    count += 9 - a

print(count)
```

It prints 36. Each pair is counted once, so there are \\boxed{36}.""",
    "Chinese": """\
设小明有x个苹果，则小红有2x个。两人共有18个，所以3x=18。解得x=6！因此小明有6个苹果，答案是\\boxed{6}。""",
    "Chinese, numbered": """\
第一步：设长为a，宽为b，周长为20，所以a+b=10。
第二步：面积为24，所以ab=24。
第三步：解得a=6，b=4。
答案：\\boxed{6}""",
    "one blob": """\
First note that 3.5 hours are 210 minutes. He reads 2 pages a minute! So he reads 420 pages in all? Yes, since 2 * 210 \
= 420. The book has 500 pages, so 80 are left and the answer is \\boxed{80}.""",
}
